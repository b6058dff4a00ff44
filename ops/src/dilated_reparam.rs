//! A large depthwise kernel trained as several: beside the whole one, small kernels with dilated taps (Ding et al., 2024).

use crate::taps::{self, Tap};
use crate::{Activation, BatchNorm, Conv2d, ConvBn, ConvConfig, Derived};
use tch::{Tensor, nn};

/// Which of its two forms a reparameterised convolution is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branches {
    /// As trained: every branch with a batch norm of its own.
    Separate,
    /// As deployed: one convolution with bias.
    Merged,
}

/// BN(sum over branches of BN(depthwise convolution)), stride 1, sizes kept.
///
/// Names below `p`, separate: `lk_origin`, `origin_bn`, and `dil_conv_kK_R`, `dil_bn_kK_R` for each branch of kernel K and
/// dilation R; merged: `lk_origin` with a bias. The outer norm has a path of its own.
/// Multiply-adds a pixel and channel: K^2 once merged, before that also 25 to 200 for the small kernels.
#[derive(Debug)]
pub struct DilatedReparam {
    large: LargeKernel,
    norm: OuterNorm,
    out: Tap,
    merged: [Tap; 2],
}

#[derive(Debug)]
enum LargeKernel {
    Separate { whole: ConvBn, dilated: Vec<ConvBn> },
    Merged(Conv2d),
}

#[derive(Debug)]
enum OuterNorm {
    Norm(BatchNorm),
    /// y = scale x + shift is part of the kernel; [1, C, 1, 1].
    Folded {
        scale: Derived,
        shift: Derived,
    },
}

/// Kernel and dilation of the branches beside a kernel of this size.
fn dilated_branches(kernel: i64) -> &'static [(i64, i64)] {
    match kernel {
        17 => &[(5, 1), (7, 1), (9, 2), (3, 4), (3, 5), (3, 7)],
        15 => &[(5, 1), (7, 1), (7, 2), (3, 3), (3, 5), (3, 7)],
        13 => &[(5, 1), (7, 1), (7, 2), (3, 3), (3, 4), (3, 5)],
        11 => &[(5, 1), (7, 1), (5, 2), (3, 3), (3, 4)],
        9 => &[(5, 1), (7, 1), (5, 2), (3, 3)],
        7 => &[(5, 1), (3, 1), (3, 2), (3, 3)],
        5 => &[(3, 1), (3, 2)],
        _ => &[],
    }
}

impl LargeKernel {
    fn new(p: &nn::Path, channels: i64, kernel: i64, branches: Branches) -> Self {
        let depthwise = |kernel| ConvConfig::same(kernel).with_groups(channels);
        let whole = p / "lk_origin";
        match branches {
            Branches::Merged => {
                let config = depthwise(kernel).with_bias();
                LargeKernel::Merged(Conv2d::new(whole, channels, channels, config))
            }
            Branches::Separate => LargeKernel::Separate {
                whole: ConvBn::new(
                    whole,
                    p / "origin_bn",
                    channels,
                    channels,
                    depthwise(kernel),
                ),
                dilated: dilated_branches(kernel)
                    .iter()
                    .map(|(k, r)| {
                        let conv = p / format!("dil_conv_k{k}_{r}");
                        let norm = p / format!("dil_bn_k{k}_{r}");
                        let config = depthwise(*k).with_dilation(*r);
                        ConvBn::new(conv, norm, channels, channels, config)
                    })
                    .collect(),
            },
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            LargeKernel::Merged(conv) => conv.forward(x),
            LargeKernel::Separate { whole, dilated } => {
                dilated.iter().fold(whole.forward(x), |sum, branch| {
                    branch.forward_add(x, sum, Activation::None)
                })
            }
        }
    }

    /// All branches as one convolution.
    fn merged(&self) -> Conv2d {
        match self {
            LargeKernel::Merged(conv) => conv.detached(),
            LargeKernel::Separate { whole, dilated } => {
                let mut merged = whole.folded();
                for branch in dilated {
                    merged.absorb_parallel(&branch.folded());
                }
                merged
            }
        }
    }
}

impl DilatedReparam {
    /// A `kernel` x `kernel` convolution of `channels` at path `p`, its outer norm at `norm`.
    pub fn new(p: nn::Path, norm: nn::Path, [channels, kernel]: [i64; 2], b: Branches) -> Self {
        DilatedReparam {
            large: LargeKernel::new(&p, channels, kernel, b),
            norm: OuterNorm::Norm(BatchNorm::new(norm, channels, 1e-5)),
            out: Tap::at(&p),
            merged: ["merged.weight", "merged.bias"].map(|name| Tap::new(&p, name)),
        }
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.large.forward(x);
        if taps::recording() {
            self.record(&y);
        }
        match &self.norm {
            OuterNorm::Norm(norm) => norm.forward(&y),
            OuterNorm::Folded { .. } => y,
        }
    }

    /// Shows the convolution's output without the outer norm, and the kernel and bias that give it.
    fn record(&self, y: &Tensor) {
        let (weight, bias) = match &self.large {
            LargeKernel::Merged(conv) => conv.exact(),
            LargeKernel::Separate { .. } => self.large.merged().exact(),
        };
        let bias = bias.expect("a merged kernel has a bias");
        match &self.norm {
            OuterNorm::Norm(_) => {
                self.out.see(y);
                self.merged[0].see(&weight);
                self.merged[1].see(&bias);
            }
            OuterNorm::Folded { scale, shift } => {
                self.out.see(&((y - shift.like(y)) / scale.like(y)));
                let (scale, shift) = (scale.like(&bias), shift.like(&bias));
                self.merged[0].see(&(weight / scale.transpose(0, 1)));
                self.merged[1].see(&((bias - shift.flatten(0, -1)) / scale.flatten(0, -1)));
            }
        }
    }

    /// Merges the branches and the outer norm into one convolution.
    pub fn fuse(&mut self) {
        let OuterNorm::Norm(norm) = &self.norm else {
            return;
        };
        let (scale, shift) = norm.scale_shift();
        let mut merged = self.large.merged();
        merged.fold_output(&scale, &shift);
        merged.fuse();
        self.large = LargeKernel::Merged(merged);
        let column = |t: Tensor| Derived::new(t.reshape([1, -1, 1, 1]));
        self.norm = OuterNorm::Folded {
            scale: column(scale),
            shift: column(shift),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn forward(layer: &DilatedReparam, x: &Tensor) -> Tensor {
        tch::no_grad(|| layer.forward(x))
    }

    #[test]
    fn the_merged_kernel_equals_its_branches() {
        tch::manual_seed(5);
        for kernel in [17, 15, 13, 11, 9, 7, 5] {
            let mut store = nn::VarStore::new(Device::Cpu);
            let root = store.root();
            let sizes = [3, kernel];
            let norm = &root / "norm";
            let mut layer = DilatedReparam::new(root.clone(), norm, sizes, Branches::Separate);
            store.double();
            tch::no_grad(|| {
                for (name, t) in store.variables().iter_mut() {
                    let _ = t.uniform_(0.5, 1.5);
                    if name.contains("mean") || name.contains("bias") {
                        let _ = t.normal_(0.0, 0.5);
                    }
                }
            });
            let x = Tensor::randn([2, 3, 9, 20], (Kind::Double, Device::Cpu));
            let before = forward(&layer, &x);
            layer.fuse();
            layer.fuse();
            let error = (forward(&layer, &x) - &before).abs().max();
            let error = error.double_value(&[]) / before.abs().max().double_value(&[]);
            assert!(error < 1e-13, "kernel {kernel}: {error}");
        }
    }
}
