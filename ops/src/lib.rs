//! Layers and attention operators over tch tensors: each with one composed definition and, where it pays, a fused form.
//!
//! No model, no file format, no evaluation.
