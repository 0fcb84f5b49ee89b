"""The command `ma`.  Talks to the API like any other client; imports heavy parts only where they are used."""
