//! Sizes and sparsity of the variants.

use zoo_ops::connectivity::{ConnectivityConfig, Keep};

/// Input pixels per token along each side.
pub(super) const STRIDE: i64 = 16;
/// Width of a head in every variant.
const HEAD_WIDTH: i64 = 64;
/// Blocks of a DeiT trunk behind whose attention tokens are pruned.
const PRUNING_BLOCKS: [usize; 3] = [3, 6, 9];

/// What carries the sparse attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunk {
    /// Patches of 16, MLP ratio 4, norms with epsilon 1e-6.
    Deit,
    /// Convolutional stem, MLP ratio 3, halved residual branches, a second head on the patch tokens.
    LvVit,
}

/// Sizes and sparsity of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network around the attention.
    pub trunk: Trunk,
    /// Channels of a token.
    pub width: i64,
    /// Blocks.
    pub depth: usize,
    /// Which coefficients of the predictor's basis stay.
    pub coefficients: Keep,
    /// How keys are chosen.
    pub connections: Connections,
    /// Share of patch tokens kept at each of three prunings (DeiT trunk); 1 prunes nothing.
    pub token_keep_rate: f64,
    /// Height and width of the input in pixels.
    pub image: [i64; 2],
}

/// How a query's keys are chosen from the predicted scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Connections {
    /// The best ceil(rate * tokens).
    Rate(f64),
    /// Those strictly above a threshold.
    Above(f64),
}

impl Config {
    /// On DeiT-Ti; not in the official training script.
    pub fn tiny() -> Self {
        Self::on(Trunk::Deit, 192, 12)
    }

    /// On DeiT-S.
    pub fn small() -> Self {
        Self::on(Trunk::Deit, 384, 12)
    }

    /// On DeiT-B; not in the official training script.
    pub fn base() -> Self {
        Self::on(Trunk::Deit, 768, 12)
    }

    /// On LV-ViT-S.
    pub fn lvvit_small() -> Self {
        Self::on(Trunk::LvVit, 384, 16)
    }

    /// On LV-ViT-M; not in the official training script.
    pub fn lvvit_medium() -> Self {
        Self::on(Trunk::LvVit, 512, 20)
    }

    /// The same with another share of connected keys.
    pub fn keeping(self, rate: f64) -> Self {
        Config {
            connections: Connections::Rate(rate),
            ..self
        }
    }

    /// The same with thresholds on coefficients and scores instead of fixed numbers.
    pub fn thresholds(self, coefficient: f64, score: f64) -> Self {
        Config {
            coefficients: Keep::Above(coefficient),
            connections: Connections::Above(score),
            ..self
        }
    }

    /// The same with tokens pruned to `rate`, `rate`^2 and `rate`^3 of them behind blocks 3, 6 and 9.
    pub fn pruning(self, rate: f64) -> Self {
        Config {
            token_keep_rate: rate,
            ..self
        }
    }

    fn on(trunk: Trunk, width: i64, depth: usize) -> Self {
        Config {
            trunk,
            width,
            depth,
            coefficients: Keep::Largest(8),
            connections: Connections::Rate(0.25),
            token_keep_rate: 1.0,
            image: [224; 2],
        }
    }

    pub(super) fn heads(&self) -> i64 {
        self.width / HEAD_WIDTH
    }

    pub(super) fn grid(&self) -> [i64; 2] {
        self.image.map(|n| n / STRIDE)
    }

    pub(super) fn tokens(&self) -> i64 {
        let [height, width] = self.grid();
        1 + height * width
    }

    pub(super) fn eps(&self) -> f64 {
        match self.trunk {
            Trunk::Deit => 1e-6,
            Trunk::LvVit => 1e-5,
        }
    }

    pub(super) fn connectivity(&self) -> ConnectivityConfig {
        ConnectivityConfig {
            tokens: self.tokens(),
            reduced_tokens: self.tokens() / 6,
            heads: self.heads(),
            head_width: HEAD_WIDTH,
            reduced_width: HEAD_WIDTH / 2,
            coefficients: self.coefficients,
            basis_above: 0.02,
            connections: match self.connections {
                Connections::Rate(rate) => Keep::Largest(share(rate, self.tokens())),
                Connections::Above(threshold) => Keep::Above(threshold),
            },
        }
    }

    /// Patch tokens that stay behind block `index`, where some are pruned there.
    pub(super) fn pruned_to(&self, index: usize) -> Option<i64> {
        let times = 1 + PRUNING_BLOCKS.iter().position(|&b| b == index)?;
        let rate = self.token_keep_rate.powi(times as i32);
        (self.token_keep_rate < 1.0).then(|| share(rate, self.tokens() - 1))
    }
}

/// ceil(rate * count).
fn share(rate: f64, count: i64) -> i64 {
    (rate * count as f64).ceil() as i64
}
