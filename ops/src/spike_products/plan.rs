//! How rows of the input reach rows of the output, and the pieces in which they do.

/// A product of rows with weights, seen as a convolution of stride 1 without groups; a linear layer has one tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Images.
    pub images: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the kernel.
    pub taps: [usize; 2],
    /// Zeros on each side; fewer than the kernel is long.
    pub padding: [usize; 2],
}

impl Shape {
    /// Rows that are multiplied one by one.
    pub fn rows(rows: usize) -> Self {
        Shape {
            images: 1,
            input: [rows, 1],
            taps: [1; 2],
            padding: [0; 2],
        }
    }

    /// Height and width of the output; nothing where the kernel is larger than the padded input.
    pub fn output(&self) -> Option<[usize; 2]> {
        let side = |i: usize| (self.input[i] + 2 * self.padding[i] + 1).checked_sub(self.taps[i]);
        match (side(0)?, side(1)?) {
            (0, _) | (_, 0) => None,
            (height, width) => Some([height, width]),
        }
    }
}

/// Output rows that are computed together, and the grid of sums in which they are.
///
/// Every pixel of the input adds to one cell for each tap, wherever that lies: the grid has margins that catch what
/// falls outside of the output, so that no tap asks where it is. Columns share the margins of neighbouring lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub first_image: usize,
    pub images: usize,
    pub first_line: usize,
    /// Lines of each image's output.
    pub lines: usize,
}

/// A [`Shape`] in chunks.
#[derive(Debug)]
pub(super) struct Plan {
    pub shape: Shape,
    /// Height and width of the output.
    pub output: [usize; 2],
    pub chunks: Vec<Chunk>,
}

/// Rows of a chunk at most: their sums of a panel stay in the second cache.
const MOST_ROWS: usize = 1024;
/// Rows of a chunk at least, unless there are none: below, making tables costs more than using them saves.
const FEWEST_ROWS: usize = 128;

impl Plan {
    /// Chunks for so many threads, each of which shall have `panels` tasks of each chunk or a part of them.
    pub fn new(shape: Shape, output: [usize; 2], panels: usize, threads: usize) -> Self {
        let [height, width] = output;
        let rows = shape.images * height * width;
        let wanted = match threads {
            0 | 1 => 1,
            _ => (3 * threads).div_ceil(panels.max(1)),
        };
        let most = rows.div_ceil(wanted).clamp(FEWEST_ROWS, MOST_ROWS);
        let mut chunks = Vec::new();
        if height * width <= most {
            let together = even(shape.images, most / (height * width));
            for first_image in (0..shape.images).step_by(together) {
                chunks.push(Chunk {
                    first_image,
                    images: together.min(shape.images - first_image),
                    first_line: 0,
                    lines: height,
                });
            }
        } else {
            let together = even(height, (most / width).max(1));
            for first_image in 0..shape.images {
                for first_line in (0..height).step_by(together) {
                    chunks.push(Chunk {
                        first_image,
                        images: 1,
                        first_line,
                        lines: together.min(height - first_line),
                    });
                }
            }
        }
        Plan {
            shape,
            output,
            chunks,
        }
    }

    /// Cells from one line of the grid to the next.
    fn pitch(&self) -> usize {
        self.output[1] + self.shape.taps[1] - 1 - self.shape.padding[1]
    }

    /// Lines of the grid that an image of `chunk` has.
    fn grid_lines(&self, chunk: &Chunk) -> usize {
        chunk.lines + 2 * (self.shape.taps[0] - 1)
    }

    /// Cells of the grid.
    pub fn cells(&self, chunk: &Chunk) -> usize {
        chunk.images * self.grid_lines(chunk) * self.pitch() + self.shape.taps[1]
    }

    /// The lines of the input that `chunk` reads.
    pub fn input_lines(&self, chunk: &Chunk) -> std::ops::Range<usize> {
        let [taps, padding] = [self.shape.taps[0], self.shape.padding[0]];
        let end = chunk.first_line + chunk.lines + taps - 1;
        chunk.first_line.saturating_sub(padding)
            ..end.saturating_sub(padding).min(self.shape.input[0])
    }

    /// The cell to which the first pixel of input line `line` adds by the last tap.
    pub fn cell(&self, chunk: &Chunk, image: usize, line: usize) -> usize {
        let image = (image - chunk.first_image) * self.grid_lines(chunk);
        (image + line + self.shape.padding[0] - chunk.first_line) * self.pitch()
    }

    /// How much further the cells are to which tap `index` (row by row) adds.
    pub fn tap(&self, index: usize) -> usize {
        let [height, width] = self.shape.taps;
        let (y, x) = (index / width, index % width);
        (height - 1 - y) * self.pitch() + (width - 1 - x)
    }

    /// The cell of the first output of line `line`.
    pub fn first(&self, chunk: &Chunk, image: usize, line: usize) -> usize {
        let [height, width] = self.shape.taps;
        let lines = (image - chunk.first_image) * self.grid_lines(chunk) + line - chunk.first_line;
        (lines + height - 1) * self.pitch() + width - 1 - self.shape.padding[1]
    }
}

/// As many of `all` as at most `most`, so that every part has about as many.
fn even(all: usize, most: usize) -> usize {
    all.div_ceil(all.div_ceil(most.max(1)).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_cell_gets_its_taps_and_no_other() {
        for (input, taps, padding) in [
            ([5, 7], [3, 3], [1, 1]),
            ([6, 4], [3, 1], [0, 0]),
            ([40, 33], [5, 3], [2, 2]),
        ] {
            let shape = Shape {
                images: 3,
                input,
                taps,
                padding,
            };
            let output = shape.output().expect("an output");
            let plan = Plan::new(shape, output, 1, 2);
            let mut seen = 0;
            for chunk in &plan.chunks {
                let mut sums = vec![Vec::new(); plan.cells(chunk)];
                for image in chunk.first_image..chunk.first_image + chunk.images {
                    for y in plan.input_lines(chunk) {
                        for (x, tap) in
                            (0..input[1]).flat_map(|x| (0..taps[0] * taps[1]).map(move |t| (x, t)))
                        {
                            let cell = plan.cell(chunk, image, y) + x + plan.tap(tap);
                            sums[cell].push([image, y, x, tap]);
                        }
                    }
                    for line in chunk.first_line..chunk.first_line + chunk.lines {
                        for x in 0..output[1] {
                            let found = &sums[plan.first(chunk, image, line) + x];
                            assert_eq!(*found, expected(&shape, image, line, x));
                            seen += 1;
                        }
                    }
                }
            }
            assert_eq!(seen, 3 * output[0] * output[1]);
        }
    }

    /// What adds to an output, in the order of the input's pixels.
    fn expected(shape: &Shape, image: usize, line: usize, column: usize) -> Vec<[usize; 4]> {
        let mut found = Vec::new();
        for tap in 0..shape.taps[0] * shape.taps[1] {
            let y = (line + tap / shape.taps[1]).checked_sub(shape.padding[0]);
            let x = (column + tap % shape.taps[1]).checked_sub(shape.padding[1]);
            if let (Some(y), Some(x)) = (y, x)
                && y < shape.input[0]
                && x < shape.input[1]
            {
                found.push([image, y, x, tap]);
            }
        }
        found.sort_unstable();
        found
    }
}
