"""What an alert means: rules, models, and the service that asks them within a budget."""
