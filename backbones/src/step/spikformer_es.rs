//! Spikformer for ES-ImageNet: TIM's network without its temporal interaction, whose weights stay unused.
//!
//! Official code: Fancyssc/STEP, `cls/models/dvs/spikformer_es.py`. Inputs are [B, 2, T, H, W]. The official code orders
//! rows by image and its neurons read them by time, so that a batch of more than one image is mixed up; here rows are ordered by
//! time, which changes nothing for one image. The configuration has ten steps; the official loader gives eight.

use super::tim::{self, FRAMES};
use super::variants::IMAGENET_VARIANT;
use crate::{InputForm, Preprocessing, Variant};

/// 4-384 over ten steps.
pub fn config() -> tim::Config {
    tim::Config {
        input: InputForm::Clips { steps: 10 },
        width: 384,
        heads: 12,
        depth: 4,
        scale: 0.125,
        interacts: false,
    }
}

/// Maps of events, cropped to their centre.
const CLIPS: Preprocessing = Preprocessing {
    size: (224, 224),
    source: "Fancyssc/STEP cls/configs/spikformer/esimgnet.yml (binary event maps, not normalised)",
    ..FRAMES
};

/// Every variant.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "step-spikformer-es",
    aliases: &["spikformer_es"],
    params: 9_710_722,
    preprocessing: CLIPS,
    build: |p, o| tim::build(p, config(), o),
    ..IMAGENET_VARIANT
}];
