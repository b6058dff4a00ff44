//! What the inside of a forward pass shows: tokens at all positions, and the sparsity that the official code prints.

use super::Tokens;
use tch::Tensor;
use zoo_ops::connectivity::{Connectivity, ConnectivityPredictor};
use zoo_ops::taps;

/// Live tokens [B, 1 + L, C] among zeros at the pruned positions: the shape of `all`.
pub(super) fn at_all_positions(x: &Tensor, live: Option<&Tensor>, all: &Tensor) -> Tensor {
    match live {
        None => x.shallow_clone(),
        Some(live) => {
            let index = live.unsqueeze(2).expand_as(x);
            all.zeros_like().scatter(1, &index, x)
        }
    }
}

/// Tokens behind block `i`, and which are live if the block pruned some.
pub(super) fn see_block(i: usize, tokens: &Tokens, pruned: bool, all: &Tensor) {
    let live = tokens.live.as_ref();
    taps::see(
        &format!("stages.{i}"),
        &at_all_positions(&tokens.x, live, all),
    );
    if pruned {
        let ones = tokens.x.narrow(2, 0, 1).ones_like();
        let mask = at_all_positions(&ones, live, &all.narrow(2, 0, 1));
        taps::see(
            &format!("token_mask.{i}"),
            &mask.slice(1, 1, None, 1).squeeze_dim(2),
        );
    }
}

/// Shares of zeros in basis, coefficients and mask, averaged over blocks: in float32, as the official evaluation has it.
#[derive(Debug, Default)]
pub(super) struct Sparsity(Vec<[f32; 3]>);

impl Sparsity {
    /// Counts a block. The rows of pruned tokens, which the official code computes, are taken to be like the others.
    pub(super) fn add(
        &mut self,
        predictor: &ConnectivityPredictor,
        found: &Connectivity,
        all_tokens: i64,
    ) {
        let count = |t: &Tensor| t.count_nonzero(None).int64_value(&[]);
        let share = |zeros: i64, total: i64| zeros as f32 / total as f32;
        let zeros = |t: &Tensor| share(t.numel() as i64 - count(t), t.numel() as i64);
        let size = found.mask.size();
        let class_rows = size[0] * size[1];
        let patch_pairs = count(&found.mask) * (all_tokens - 1) / size[2];
        let pairs = class_rows * all_tokens * all_tokens;
        self.0.push([
            zeros(&predictor.basis(&found.scores)),
            zeros(&found.coefficients),
            share(pairs - patch_pairs - class_rows * all_tokens, pairs),
        ]);
    }

    /// Shows the averages, where any block was counted.
    pub(super) fn see(&self) {
        if self.0.is_empty() {
            return;
        }
        let average = [0, 1, 2].map(|i| {
            let sum: f32 = self.0.iter().map(|shares| shares[i]).sum();
            sum / self.0.len() as f32
        });
        taps::see("sparsity", &Tensor::from_slice(&average));
    }
}
