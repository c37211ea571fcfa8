"""Layer one half: a neuron between the inputs and everything else of a DAG (Shemyakova and Khashin 2021)."""
