"""The command `lora-clf`: one file per command, parsing and printing only; nothing imports this room."""
