//! What is measured, each beside the limit that was measured in the same run.
