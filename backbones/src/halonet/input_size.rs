//! Which input sizes a variant takes.

use super::{Attention, Config, StageConfig};

impl Config {
    /// Follows a size through the network; the error names the first attention that can not take its map.
    pub(super) fn check_input(&self, input: [i64; 2]) -> Result<(), String> {
        let [height, width] = input;
        let refuse = |stage: usize, map: [i64; 2], needs: String| {
            Err(format!(
                "the attention of stage {} needs {needs}, and {height}x{width} inputs give it a map of {}x{}",
                stage + 1,
                map[0],
                map[1]
            ))
        };
        if height < 1 || width < 1 {
            return Err(format!("an image of {height}x{width} has no pixels"));
        }
        let halved = |map: [i64; 2]| map.map(|side| (side + 1) / 2);
        let mut map = (0..self.stem.stride().ilog2()).fold(input, |map, _| halved(map));
        for (stage, sizes) in self.stages.iter().enumerate() {
            for (i, kind) in sizes.blocks.chars().enumerate() {
                let strided = i == 0 && self.stage_stride(stage) == 2;
                let mut next = if strided { halved(map) } else { map };
                match sizes.attention {
                    _ if kind != 'A' => {}
                    Attention::Halo { block, .. } => {
                        if map.iter().any(|side| side % block != 0) {
                            let multiple = self.whole_blocks();
                            let needs = format!(
                                "whole blocks of {block}x{block} pixels (multiples of {multiple} always fit)"
                            );
                            return refuse(stage, map, needs);
                        }
                        if strided && block % 2 == 1 {
                            next = map.map(|side| side / 2);
                        }
                    }
                    Attention::Bottleneck => {
                        let [rows, columns] = self.map_of_stage(stage);
                        if map != [rows, columns] {
                            return refuse(stage, map, format!("a map of {rows}x{columns}"));
                        }
                    }
                    Attention::Lambda => {}
                }
                map = next;
            }
        }
        Ok(())
    }

    /// A number of pixels whose multiples are whole blocks everywhere.
    fn whole_blocks(&self) -> i64 {
        let needed = |(stage, sizes): (usize, &StageConfig)| match sizes.attention {
            Attention::Halo { block, .. } if sizes.blocks.contains('A') => {
                let only_first =
                    sizes.blocks.rfind('A') == Some(0) && self.stage_stride(stage) == 2;
                block * if only_first { 2 << stage } else { 4 << stage }
            }
            _ => 1,
        };
        self.stages
            .iter()
            .enumerate()
            .map(needed)
            .max()
            .unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_be_whole_blocks() {
        let resnet = Config::halonet26t();
        assert!(resnet.check_input([256, 512]).is_ok());
        assert!(resnet.check_input([255, 241]).is_ok(), "strides round up");
        let error = resnet.check_input([288, 256]).unwrap_err();
        assert!(
            error.contains("stage 3") && error.contains("18x16"),
            "{error}"
        );
        assert!(error.contains("multiples of 256"), "{error}");
        let regnet = Config::haloregnetz_b();
        assert!(regnet.check_input([448, 224]).is_ok());
        assert!(regnet.check_input([336, 224]).is_err());
        assert!(regnet.check_input([0, 224]).is_err());
    }

    #[test]
    fn global_attention_takes_the_size_it_was_built_for() {
        let square = Config::halo2botnet50ts([256, 256]);
        assert!(square.check_input([256, 256]).is_ok());
        let error = square.check_input([256, 512]).unwrap_err();
        assert!(error.contains("8x8") && error.contains("8x16"), "{error}");
        let wide = Config::lamhalobotnet50ts([256, 512]);
        assert!(wide.check_input([256, 512]).is_ok());
    }
}
