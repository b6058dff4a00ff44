//! The kinds of things that are drawn, each as a signed distance to its edge.

use super::exact::{fraction, length, mix, sine, turns, unit};

/// A kind of thing: a class of the drawn set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Checks,
    Crescent,
    Cross,
    Disc,
    Dots,
    Gradient,
    Grid,
    Noise,
    Rays,
    Ring,
    Spiral,
    Square,
    Star,
    Stripes,
    Triangle,
    Waves,
}

/// All kinds with their names, in the sorted order of the names: a kind's label is its position.
pub(super) const KINDS: [(Kind, &str); 16] = [
    (Kind::Checks, "checks"),
    (Kind::Crescent, "crescent"),
    (Kind::Cross, "cross"),
    (Kind::Disc, "disc"),
    (Kind::Dots, "dots"),
    (Kind::Gradient, "gradient"),
    (Kind::Grid, "grid"),
    (Kind::Noise, "noise"),
    (Kind::Rays, "rays"),
    (Kind::Ring, "ring"),
    (Kind::Spiral, "spiral"),
    (Kind::Square, "square"),
    (Kind::Star, "star"),
    (Kind::Stripes, "stripes"),
    (Kind::Triangle, "triangle"),
    (Kind::Waves, "waves"),
];

impl Kind {
    /// Whether it is one figure on a background rather than a texture that fills the image.
    pub fn is_figure(self) -> bool {
        use Kind::{Crescent, Cross, Disc, Ring, Square, Star, Triangle};
        matches!(
            self,
            Crescent | Cross | Disc | Ring | Square | Star | Triangle
        )
    }

    /// How much of the pixel at (x, y) is of the first colour, 0 to 1.
    ///
    /// (x, y) is in pixels from the middle of the thing, rotated; `size` is a figure's radius or a texture's period.
    pub fn coverage(self, x: f64, y: f64, size: f64, seed: u64) -> f64 {
        match self {
            Kind::Gradient => 0.5 - 0.5 * sine(x / (14.0 * size) + unit(seed)),
            Kind::Noise => noise(x / size, y / size, seed),
            _ => (0.5 - self.distance(x, y, size)).clamp(0.0, 1.0),
        }
    }

    /// Pixels to the edge, negative within.
    fn distance(self, x: f64, y: f64, size: f64) -> f64 {
        match self {
            Kind::Disc => length(x, y) - size,
            Kind::Ring => (length(x, y) - 0.78 * size).abs() - 0.22 * size,
            Kind::Crescent => {
                let bite = length(x - 0.5 * size, y) - 0.8 * size;
                (length(x, y) - size).max(-bite)
            }
            Kind::Square => rectangle(x, y, 0.8 * size, 0.8 * size),
            Kind::Cross => {
                let across = rectangle(x, y, size, 0.3 * size);
                across.min(rectangle(x, y, 0.3 * size, size))
            }
            Kind::Triangle => triangle(x, y, size),
            Kind::Star => star(x, y, size),
            Kind::Stripes => band(x / size) * size,
            Kind::Waves => band((y + 0.5 * size * sine(x / (2.0 * size))) / size) * size,
            Kind::Grid => {
                (0.5 - cell(x, size).abs()).min(0.5 - cell(y, size).abs()) * size - 0.12 * size
            }
            Kind::Dots => length(cell(x, size), cell(y, size)) * size - 0.3 * size,
            Kind::Checks => checks(x, y, size),
            Kind::Rays => band(turns(x, y) * 12.0) * length(x, y) * std::f64::consts::TAU / 12.0,
            Kind::Spiral => band(length(x, y) / size - turns(x, y)) * size,
            Kind::Gradient | Kind::Noise => 0.0,
        }
    }
}

/// Position within its cell, -0.5 to 0.5 periods.
fn cell(x: f64, period: f64) -> f64 {
    fraction(x / period) - 0.5
}

/// Distance in periods to the edge of bands half a period wide.
fn band(periods: f64) -> f64 {
    (fraction(periods) - 0.5).abs() - 0.25
}

fn checks(x: f64, y: f64, size: f64) -> f64 {
    let (a, b) = (band(x / (2.0 * size)), band(y / (2.0 * size)));
    let near = a.abs().min(b.abs()) * 2.0 * size;
    if a * b > 0.0 { -near } else { near }
}

fn rectangle(x: f64, y: f64, half_width: f64, half_height: f64) -> f64 {
    (x.abs() - half_width).max(y.abs() - half_height)
}

/// Equilateral, its corners `size` from the middle.
fn triangle(x: f64, y: f64, size: f64) -> f64 {
    let slanted = 0.866_025_403_784_438_6 * x.abs() - 0.5 * y;
    slanted.max(y) - 0.5 * size
}

/// Five points `size` from the middle: within at least four of the five half planes of a pentagram.
fn star(x: f64, y: f64, size: f64) -> f64 {
    const NORMALS: [(f64, f64); 5] = [
        (0.0, 1.0),
        (0.951_056_516_295_153_6, 0.309_016_994_374_947_4),
        (0.587_785_252_292_473_1, -0.809_016_994_374_947_4),
        (-0.587_785_252_292_473_1, -0.809_016_994_374_947_4),
        (-0.951_056_516_295_153_6, 0.309_016_994_374_947_4),
    ];
    let mut largest = f64::NEG_INFINITY;
    let mut second = f64::NEG_INFINITY;
    for (nx, ny) in NORMALS {
        let d = nx * x + ny * y;
        if d > largest {
            second = largest;
            largest = d;
        } else if d > second {
            second = d;
        }
    }
    second - 0.309_016_994_374_947_4 * size
}

/// Four octaves of value noise, stretched to use the whole range.
pub(super) fn noise(x: f64, y: f64, seed: u64) -> f64 {
    let mut sum = 0.0;
    let (mut weight, mut scale) = (0.5, 1.0);
    for octave in 0..4 {
        sum += weight * value_noise(x * scale, y * scale, mix(seed ^ octave));
        weight *= 0.5;
        scale *= 2.0;
    }
    (2.2 * (sum - 0.469) + 0.5).clamp(0.0, 1.0)
}

/// Random values on the integer lattice, smoothly interpolated.
fn value_noise(x: f64, y: f64, seed: u64) -> f64 {
    let (column, row) = (x.floor(), y.floor());
    let corner = |dx: f64, dy: f64| {
        let (i, j) = ((column + dx) as i64 as u64, (row + dy) as i64 as u64);
        unit(mix(
            seed ^ mix(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix(j))
        ))
    };
    let (u, v) = (smooth(x - column), smooth(y - row));
    let top = corner(0.0, 0.0) * (1.0 - u) + corner(1.0, 0.0) * u;
    let bottom = corner(0.0, 1.0) * (1.0 - u) + corner(1.0, 1.0) * u;
    top * (1.0 - v) + bottom * v
}

fn smooth(t: f64) -> f64 {
    t * t * (3.0 - 2.0 * t)
}
