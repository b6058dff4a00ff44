//! Image files to exactly the pixels that Pillow gives, and to the tensors that timm and torchvision make of them.
//!
//! No model, no metric, no data set layout: bytes in, pixels or floats out.
