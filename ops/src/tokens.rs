//! Maps to tokens and back: the class token, and learnt positions on a grid, resampled to other grids.

use crate::Derived;
use std::cell::RefCell;
use tch::{Kind, Tensor, nn};

/// Grids whose resampled tables are kept once the weights are final.
const KEPT: usize = 8;

/// A table of positions: one entry for the class token, then one for each cell of a grid, row-major.
///
/// For another grid the cells are resampled as timm's `resample_abs_pos_embed` does it: bicubic with antialiasing
/// (libtorch's, cubic coefficient -0.5), align_corners false, the class entry untouched. Always in float64.
#[derive(Debug)]
pub struct PositionEmbedding {
    table: Tensor,
    grid: [i64; 2],
    resampled: Option<Resampled>,
}

/// What is known once the weights are final.
#[derive(Debug)]
struct Resampled {
    exact: Tensor,
    grids: RefCell<Vec<([i64; 2], Derived)>>,
}

impl PositionEmbedding {
    /// The tensor `name` [1, 1 + grid cells, `width`] below `p`.
    pub fn new(p: &nn::Path, name: &str, grid: [i64; 2], width: i64) -> Self {
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: 0.02,
        };
        PositionEmbedding {
            table: p.var(name, &[1, 1 + grid[0] * grid[1], width], init),
            grid,
            resampled: None,
        }
    }

    /// The table [1, 1 + cells of `grid`, width] with the kind and device of `x`.
    pub fn at(&self, grid: [i64; 2], x: &Tensor) -> Tensor {
        match &self.resampled {
            Some(resampled) => resampled.at(self.grid, grid, x),
            None if grid == self.grid => self.table.shallow_clone(),
            None => resample(&self.table, self.grid, grid).to_kind(x.kind()),
        }
    }

    /// Declares the table final: resampled tables are kept from now on.
    pub fn fuse(&mut self) {
        self.resampled.get_or_insert_with(|| Resampled {
            exact: self.table.detach().copy(),
            grids: RefCell::default(),
        });
    }
}

impl Resampled {
    fn at(&self, from: [i64; 2], to: [i64; 2], x: &Tensor) -> Tensor {
        let mut grids = self.grids.borrow_mut();
        if let Some((_, table)) = grids.iter().find(|(g, _)| *g == to) {
            return table.like(x);
        }
        if grids.len() == KEPT {
            drop(grids.remove(0));
        }
        let table = if from == to {
            self.exact.shallow_clone()
        } else {
            resample(&self.exact, from, to)
        };
        let table = Derived::new(table);
        let converted = table.like(x);
        grids.push((to, table));
        converted
    }
}

/// The class token in front of the patches, and positions added. Names: `cls_token` [1, 1, C], `pos_embed`.
#[derive(Debug)]
pub struct TokenEmbedding {
    class: Tensor,
    positions: PositionEmbedding,
}

impl TokenEmbedding {
    /// `width` channels at path `p`; `grid` is the patches' height and width in training.
    pub fn new(p: &nn::Path, grid: [i64; 2], width: i64) -> Self {
        TokenEmbedding {
            class: p.zeros("cls_token", &[1, 1, width]),
            positions: PositionEmbedding::new(p, "pos_embed", grid, width),
        }
    }

    /// Patches [B, C, H, W] to tokens [B, 1 + HW, C], row-major; positions are resampled where the grid is another.
    pub fn forward(&self, patches: &Tensor) -> Tensor {
        let grid = [patches.size()[2], patches.size()[3]];
        let tokens = patches.flatten(2, -1).transpose(1, 2);
        let class = tokens.narrow(1, 0, 1).zeros_like() + &self.class;
        Tensor::cat(&[class, tokens], 1) + self.positions.at(grid, patches)
    }

    /// Declares the weights final.
    pub fn fuse(&mut self) {
        self.positions.fuse();
    }
}

/// Tokens [B, 1 + HW, C], the class token first, to the patches' map [B, C, H, W]: a view.
pub fn patch_map(tokens: &Tensor, grid: [i64; 2]) -> Tensor {
    tokens
        .slice(1, 1, None, 1)
        .transpose(1, 2)
        .unflatten(2, grid)
}

/// [1, 1 + cells of `from`, C] to [1, 1 + cells of `to`, C], float64.
fn resample(table: &Tensor, from: [i64; 2], to: [i64; 2]) -> Tensor {
    let table = table.to_kind(Kind::Double);
    let cells = table.slice(1, 1, None, 1).transpose(1, 2);
    let cells = cells
        .unflatten(2, from)
        .internal_upsample_bicubic2d_aa(to, false, None, None);
    let class = table.narrow(1, 0, 1);
    Tensor::cat(&[class, cells.flatten(2, -1).transpose(1, 2)], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn embedding(vs: &nn::VarStore) -> PositionEmbedding {
        PositionEmbedding::new(&vs.root(), "pos_embed", [4, 6], 5)
    }

    #[test]
    fn its_own_grid_is_the_table_itself() {
        let vs = nn::VarStore::new(Device::Cpu);
        let mut positions = embedding(&vs);
        let table = vs.variables()["pos_embed"].copy();
        let x = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        assert!(positions.at([4, 6], &x).equal(&table));
        positions.fuse();
        assert!(positions.at([4, 6], &x).equal(&table));
    }

    #[test]
    fn kept_tables_equal_fresh_ones_for_more_grids_than_are_kept() {
        let vs = nn::VarStore::new(Device::Cpu);
        let (fresh, mut kept) = (embedding(&vs), embedding_of(&vs));
        kept.fuse();
        let x = Tensor::zeros([1], (Kind::Double, Device::Cpu));
        for side in (1..=KEPT as i64 + 3).chain(1..4) {
            let grid = [side, side + 1];
            let (a, b) = (fresh.at(grid, &x), kept.at(grid, &x));
            assert_eq!(a.size(), [1, 1 + side * (side + 1), 5]);
            assert!(a.equal(&b), "{grid:?}");
        }
    }

    /// A second embedding with the same values.
    fn embedding_of(vs: &nn::VarStore) -> PositionEmbedding {
        PositionEmbedding {
            table: vs.variables()["pos_embed"].shallow_clone(),
            grid: [4, 6],
            resampled: None,
        }
    }

    #[test]
    fn a_constant_table_stays_constant() {
        let vs = nn::VarStore::new(Device::Cpu);
        let positions = embedding(&vs);
        tch::no_grad(|| {
            vs.variables()
                .values_mut()
                .for_each(|t| drop(t.fill_(0.75)))
        });
        let x = Tensor::zeros([1], (Kind::Double, Device::Cpu));
        let table = positions.at([7, 3], &x);
        assert!((table - 0.75).abs().max().double_value(&[]) < 1e-12);
    }
}
