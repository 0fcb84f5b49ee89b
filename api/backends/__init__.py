"""Where models answer: one port (`base`), one adapter a file.  Never decides what is deployed."""
