"""The pure middle: values, tables and the state machine; no clock, chance or I/O."""
