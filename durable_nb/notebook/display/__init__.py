"""What durable cells show: recorded outputs and badges."""
