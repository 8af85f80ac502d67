//! Prompts and gates: what is patched into a frozen backbone, through the hooks of the model.
