"""The networks: object encoders (Eq. 1) and SoCo itself (Eq. 2-6)."""
