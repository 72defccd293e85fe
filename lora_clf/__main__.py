"""`python -m lora_clf` is the command `lora-clf`."""

from lora_clf.cli.app import main

if __name__ == "__main__":
    main()
