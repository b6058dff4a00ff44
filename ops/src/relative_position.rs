//! Learnt relative positions in two dimensions: attention logits from a query and a key's distance in rows and columns.

use crate::{Derived, work};
use tch::{Tensor, nn};

/// Position logits of block-and-window attention (Bello et al., 2019; Srinivas et al., 2021).
///
/// For a query at (r, c) of its block and a key at (i, j) of a window of `window` rows and columns the logit is
/// `q . height_rel[i - r + wh - 1] + q . width_rel[j - c + ww - 1]`: the sum of a term of the key's row and one of
/// its column, which callers add by broadcasting. One table serves all heads.
/// Names: `height_rel` [2 wh - 1, d], `width_rel` [2 ww - 1, d].
#[derive(Debug)]
pub struct RelativePosition2d {
    height_rel: Tensor,
    width_rel: Tensor,
    window: [i64; 2],
    block: [i64; 2],
    tables: Option<[Derived; 2]>,
}

/// Position logits of all queries [N, bh, bw], by key row and by key column.
#[derive(Debug)]
pub struct PositionLogits {
    /// [N, bh, bw, wh].
    pub rows: Tensor,
    /// [N, bh, bw, ww].
    pub columns: Tensor,
}

impl RelativePosition2d {
    /// Queries of width `dim` in blocks of `block` (height, width), keys in windows of `window`, at path `p`.
    pub fn new(p: nn::Path, window: [i64; 2], block: [i64; 2], dim: i64) -> Self {
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: (dim as f64).powf(-0.5),
        };
        RelativePosition2d {
            height_rel: p.var("height_rel", &[2 * window[0] - 1, dim], init),
            width_rel: p.var("width_rel", &[2 * window[1] - 1, dim], init),
            window,
            block,
            tables: None,
        }
    }

    /// Queries [N, bh, bw, d] to the logits of every row and column of the window.
    pub fn logits(&self, q: &Tensor) -> PositionLogits {
        let [heights, widths] = self.tables(q);
        let by_row = |q: &Tensor, table: &Tensor| {
            work::matmul(&q.flatten(1, 2), table)
                .unflatten(1, [-1, q.size()[2]])
                .transpose(0, 1)
        };
        PositionLogits {
            rows: by_row(&q.transpose(0, 1), &heights),
            columns: by_row(&q.permute([2, 0, 1, 3]), &widths).transpose(1, 2),
        }
    }

    /// For each row (column) of the block the table entries of the window's rows: [bh, d, wh] and [bw, d, ww].
    fn tables(&self, q: &Tensor) -> [Tensor; 2] {
        match &self.tables {
            Some([heights, widths]) => [heights.like(q), widths.like(q)],
            None => [
                windows_of(&self.height_rel, self.window[0], self.block[0]),
                windows_of(&self.width_rel, self.window[1], self.block[1]),
            ],
        }
    }

    /// The tables of rows [2 wh - 1, d] and of columns [2 ww - 1, d].
    pub(crate) fn relative(&self) -> [&Tensor; 2] {
        [&self.height_rel, &self.width_rel]
    }

    /// Reports the products of so many queries with whole tables, where [`Self::logits`] takes what a query needs of them.
    pub(crate) fn report_whole(&self, q: &Tensor, queries: u64) {
        for (table, lines) in self.relative().into_iter().zip(self.window) {
            let whole = queries * table.numel() as u64;
            let needed = queries * lines as u64;
            work::products(
                q,
                table,
                [whole, needed * table.size()[1] as u64],
                needed as i64,
            );
        }
    }

    /// Whether the tables are being trained.
    pub(crate) fn requires_grad(&self) -> bool {
        self.tables.is_none() && self.height_rel.requires_grad()
    }

    /// Declares the tables final: their rows are laid out once.
    pub fn fuse(&mut self) {
        let tables = self.tables(&self.height_rel);
        self.tables = Some(tables.map(|t| Derived::new(t.contiguous())));
    }
}

/// Entries `w - 1 - r ..` of a table [2 w - 1, d] for each position r of the block: [block, d, w].
fn windows_of(table: &Tensor, window: i64, block: i64) -> Tensor {
    table
        .unfold(0, window, 1)
        .narrow(0, window - block, block)
        .flip([0])
}

impl PositionLogits {
    /// Adds both terms to scores [.., bh bw, wh ww], queries and keys row by row.
    pub fn add_to(&self, scores: &Tensor) -> Tensor {
        let (queries, keys) = (self.rows.size(), self.columns.size());
        let (bh, bw) = (queries[queries.len() - 3], queries[queries.len() - 2]);
        let (wh, ww) = (queries[queries.len() - 1], keys[keys.len() - 1]);
        let scores = scores.unflatten(-1, [wh, ww]).unflatten(-3, [bh, bw]);
        let scores = scores + self.rows.unsqueeze(-1) + self.columns.unsqueeze(-2);
        scores.flatten(-2, -1).flatten(-3, -2)
    }

    /// The sum of both terms, [.., bh bw, wh ww].
    pub fn sum(&self) -> Tensor {
        (self.rows.unsqueeze(-1) + self.columns.unsqueeze(-2))
            .flatten(-2, -1)
            .flatten(-3, -2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn logits_are_those_of_the_definition() {
        let store = nn::VarStore::new(Device::Cpu);
        let (window, block, dim) = ([5, 7], [3, 2], 4);
        let mut position = RelativePosition2d::new(store.root(), window, block, dim);
        let tables = store.variables();
        let (heights, widths) = (&tables["height_rel"], &tables["width_rel"]);
        let q = Tensor::randn([2, 3, 2, 4], (Kind::Float, Device::Cpu));
        let mut naive = Vec::new();
        for n in 0..2 {
            for (r, c) in (0..3).flat_map(|r| (0..2).map(move |c| (r, c))) {
                let query = q.get(n).get(r).get(c);
                for (i, j) in (0..5).flat_map(|i| (0..7).map(move |j| (i, j))) {
                    let row = heights.get(i - r + 4).dot(&query);
                    let column = widths.get(j - c + 6).dot(&query);
                    naive.push((row + column).double_value(&[]));
                }
            }
        }
        let naive = Tensor::from_slice(&naive).reshape([2, 6, 35]);
        let zeros = Tensor::zeros([2, 6, 35], (Kind::Float, Device::Cpu));
        for fused in [false, true] {
            if fused {
                position.fuse();
            }
            let logits = position.logits(&q);
            for ours in [logits.sum(), logits.add_to(&zeros)] {
                let error = (ours.to_kind(Kind::Double) - &naive).abs().max();
                assert!(error.double_value(&[]) < 1e-5);
            }
        }
    }
}
