//! Einstein sums, operand by operand from the left, as libtorch computes them.

use super::product;
use super::rules::Operations;
use std::collections::BTreeMap;

/// Operations of an equation: a product that sums is of MACs, one that does not is elementwise, and so is a sum of one operand.
pub(super) fn operations(equation: &str, operands: &[Vec<u64>]) -> Operations {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").unwrap_or((&equation, ""));
    let mut sizes = BTreeMap::new();
    let terms: Vec<Vec<Axis>> = left
        .split(',')
        .zip(operands)
        .map(|(term, shape)| axes(term, shape, &mut sizes))
        .collect();
    let result = match equation.contains("->") {
        true => named(right, &terms),
        false => once(&terms),
    };
    let volume = |axes: &[Axis]| {
        product(
            axes.iter()
                .map(|axis| sizes.get(axis).copied().unwrap_or(1)),
        )
    };
    let mut done = Operations::default();
    let Some((first, rest)) = terms.split_first() else {
        return done;
    };
    let mut held = first.clone();
    for (i, term) in rest.iter().enumerate() {
        let later = &rest[i + 1..];
        let needed = |axis: &Axis| result.contains(axis) || later.iter().any(|t| t.contains(axis));
        // What only one of the two has, and nobody needs, is summed before they are multiplied.
        let alone = |own: &[Axis], other: &[Axis]| -> Vec<Axis> {
            let kept = own.iter().filter(|a| needed(a) || other.contains(a));
            kept.copied().collect()
        };
        let (a, b) = (alone(&held, term), alone(term, &held));
        for (own, kept) in [(&held, &a), (term, &b)] {
            if kept.len() < own.len() {
                done.elementwise = done.elementwise.saturating_add(volume(own));
            }
        }
        let mut both = a;
        both.extend(
            b.iter()
                .filter(|axis| !both.contains(axis))
                .copied()
                .collect::<Vec<_>>(),
        );
        let sums = both.iter().any(|axis| !needed(axis));
        match sums {
            true => done.macs = done.macs.saturating_add(volume(&both)),
            false => done.elementwise = done.elementwise.saturating_add(volume(&both)),
        }
        held = both.into_iter().filter(|axis| needed(axis)).collect();
    }
    if rest.is_empty() && held.iter().any(|axis| !result.contains(axis)) {
        done.elementwise = done.elementwise.saturating_add(volume(&held));
    }
    done
}

/// A letter, or a place behind which `...` stands, counted from the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    Letter(char),
    Dots(usize),
}

/// The axes of an operand; their sizes are noted, the larger where one is broadcast.
fn axes(term: &str, shape: &[u64], sizes: &mut BTreeMap<Axis, u64>) -> Vec<Axis> {
    let letters = term.chars().filter(char::is_ascii_alphabetic).count();
    let dots = shape.len().saturating_sub(letters);
    let mut axes = Vec::new();
    let mut rest = term;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            axes.extend((0..dots).rev().map(Axis::Dots));
            rest = behind;
        } else {
            axes.push(Axis::Letter(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    for (axis, &size) in axes.iter().zip(shape) {
        let known = sizes.entry(*axis).or_insert(size);
        *known = size.max(*known);
    }
    axes.sort_unstable();
    axes.dedup();
    axes
}

fn named(term: &str, terms: &[Vec<Axis>]) -> Vec<Axis> {
    let letters = term.chars().filter(char::is_ascii_alphabetic);
    let mut result: Vec<Axis> = letters.map(Axis::Letter).collect();
    if term.contains("...") {
        result.extend(dots(terms));
    }
    result
}

/// Without an arrow: the letters that stand once.
fn once(terms: &[Vec<Axis>]) -> Vec<Axis> {
    let all = || terms.iter().flatten();
    let mut result: Vec<Axis> = all()
        .filter(|axis| matches!(axis, Axis::Letter(_)))
        .filter(|axis| all().filter(|other| other == axis).count() == 1)
        .copied()
        .collect();
    result.extend(dots(terms));
    result
}

fn dots(terms: &[Vec<Axis>]) -> Vec<Axis> {
    let dots = terms.iter().flatten();
    let dots = dots.filter(|axis| matches!(axis, Axis::Dots(_)));
    dots.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(equation: &str, operands: &[&[u64]]) -> (u64, u64) {
        let operands: Vec<_> = operands.iter().map(|shape| shape.to_vec()).collect();
        let done = operations(equation, &operands);
        (done.macs, done.elementwise)
    }

    #[test]
    fn products() {
        assert_eq!(counted("bij,bjk->bik", &[&[2, 3, 4], &[2, 4, 5]]), (120, 0));
        assert_eq!(counted("ij, jk", &[&[3, 4], &[4, 5]]), (60, 0));
        assert_eq!(counted("i,j->ij", &[&[3], &[4]]), (0, 12));
        assert_eq!(
            counted("...d,hd->...h", &[&[2, 7, 4], &[5, 4]]),
            (2 * 7 * 4 * 5, 0)
        );
    }

    #[test]
    fn a_broadcast_axis_has_the_larger_size() {
        assert_eq!(counted("bij,bjk->bik", &[&[1, 3, 4], &[2, 4, 5]]), (120, 0));
    }

    #[test]
    fn what_one_operand_sums_alone_is_no_product() {
        // The sum over i of the first (12), then 4 x 5 products over j.
        assert_eq!(counted("ij,jk->k", &[&[3, 4], &[4, 5]]), (20, 12));
        assert_eq!(counted("ij->j", &[&[3, 4]]), (0, 12));
        assert_eq!(counted("ij->ji", &[&[3, 4]]), (0, 0));
    }

    #[test]
    fn three_operands_go_from_the_left() {
        // (a b) has 2 x 3 x 4 products, its result with c 2 x 4 x 5.
        assert_eq!(
            counted("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
            (24 + 40, 0)
        );
    }
}
