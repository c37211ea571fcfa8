"""One synapse at a time, each removal tried and retrained (Shemyakova and Khashin 2021)."""
