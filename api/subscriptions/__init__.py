"""What events say and what subscriptions ask for: rules without a store."""
