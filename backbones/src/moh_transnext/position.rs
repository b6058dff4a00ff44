//! The position network: attention logits from the distance of a query and a pooled key.

use tch::{Kind, Tensor, nn};
use zoo_ops::Linear;

/// Hidden width of the network.
const POSITION_HIDDEN: i64 = 512;
/// Coordinates run to this many units at the pre-trained size.
const COORDINATE_RANGE: f64 = 8.0;

/// Logits of every pair of a query and a pooled key by their distance: a small network of log-spaced coordinates.
///
/// Names: `cpb_fc1` [512, 2], `cpb_fc2` [heads, 512].
#[derive(Debug)]
pub(super) struct PositionBias {
    fc1: Linear,
    fc2: Linear,
    pooling: i64,
    /// Side of the stage's map at the pre-trained size.
    side: i64,
    exact: Option<[(Tensor, Tensor); 2]>,
}

impl PositionBias {
    pub(super) fn new(p: &nn::Path, heads: i64, pooling: i64, side: i64) -> Self {
        PositionBias {
            fc1: Linear::new(p / "cpb_fc1", 2, POSITION_HIDDEN, true),
            fc2: Linear::new(p / "cpb_fc2", POSITION_HIDDEN, heads, true),
            pooling,
            side,
            exact: None,
        }
    }

    /// [heads, N, P] for a map of N queries, pooled to P keys, row-major both.
    ///
    /// Distances repeat: the network sees each distinct pair of a row and a column distance once. The queries of a key are
    /// side by side in memory, as kernels read them.
    pub(super) fn table(&self, map: [i64; 2]) -> Tensor {
        let [rows, columns] = map.map(|n| self.coordinates(n));
        let grid = [
            rows.unsqueeze(1).expand([-1, columns.size()[0]], false),
            columns.unsqueeze(0).expand([rows.size()[0], -1], false),
        ];
        let biases = self.network(&Tensor::stack(&grid, -1));
        let [row, column] = map.map(|n| self.distance_index(n, biases.device()));
        let pooled = map.map(|n| n / self.pooling);
        biases
            .index_select(0, &row)
            .index_select(1, &column)
            .unflatten(1, [map[1], pooled[1]])
            .unflatten(0, [map[0], pooled[0]])
            .permute([4, 1, 3, 0, 2])
            .flatten(3, 4)
            .flatten(1, 2)
            .transpose(1, 2)
    }

    fn network(&self, coordinates: &Tensor) -> Tensor {
        match &self.exact {
            None => {
                let x = coordinates
                    .to_device(self.fc1.device())
                    .to_kind(self.fc1.kind());
                self.fc2.forward(&self.fc1.forward(&x).relu())
            }
            Some([first, second]) => coordinates
                .to_device(first.0.device())
                .to_kind(Kind::Double)
                .linear(&first.0, Some(&first.1))
                .relu()
                .linear(&second.0, Some(&second.1)),
        }
    }

    /// The distinct distances of `length` queries to the centres of the pooled keys, ascending, log-spaced; in single
    /// precision as the official code has them, and on the CPU, since GPUs round logarithms otherwise.
    fn coordinates(&self, length: i64) -> Tensor {
        let furthest = length - self.pooling;
        let centre = (self.pooling - 1) as f64 / 2.0;
        let distances = Tensor::arange(length + furthest, (Kind::Float, tch::Device::Cpu));
        let scaled = (distances - (furthest as f64 + centre)) / (self.side - 1) as f64;
        let scaled = scaled * COORDINATE_RANGE;
        scaled.sign() * (scaled.abs() + 1.0).log2() / COORDINATE_RANGE.log2()
    }

    /// Which of them each pair of a query and a pooled key has: [length * pooled].
    fn distance_index(&self, length: i64, device: tch::Device) -> Tensor {
        let range = |n| Tensor::arange(n, (Kind::Int64, device));
        let keys = range(length / self.pooling) * self.pooling;
        let distances = range(length).unsqueeze(1) - keys + (length - self.pooling);
        distances.flatten(0, 1)
    }

    /// Keeps the weights as they are now, in float64.
    pub(super) fn fuse(&mut self) {
        let exact = |layer: &Linear| {
            let (weight, bias) = layer.exact();
            (weight.copy(), bias.expect("the layer has a bias").copy())
        };
        self.exact = Some([exact(&self.fc1), exact(&self.fc2)]);
    }
}
