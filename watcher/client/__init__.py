"""The door to the ModelArts DevServer jobs API: sign, send, guard, classify."""
