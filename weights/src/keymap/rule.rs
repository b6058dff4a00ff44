//! One rule of a key map: both its sides as tokens over shared captures.

use super::Direction;

/// A compiled rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    captures: Vec<Capture>,
    official: Vec<Token>,
    other: Vec<Token>,
}

#[derive(Clone, Debug)]
struct Capture {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A whole number between the two, both included.
    Number(u32, u32),
    Text,
}

#[derive(Clone, Debug)]
enum Token {
    Literal(String),
    /// A capture by its index; numbers have `shift` added on this side.
    Capture {
        slot: usize,
        shift: i64,
    },
}

/// What a capture stands for in one name.
#[derive(Clone, Copy)]
enum Value<'k> {
    Number(i64),
    Text(&'k str),
}

impl Rule {
    /// Compiles a rule, or says what is wrong with it.
    pub(super) fn new(official: &str, other: &str) -> Result<Rule, String> {
        let mut rule = Rule {
            captures: Vec::new(),
            official: Vec::new(),
            other: Vec::new(),
        };
        for part in parts(official)? {
            let token = rule.official_token(part)?;
            rule.official.push(token);
        }
        for part in parts(other)? {
            let token = rule.other_token(part)?;
            rule.other.push(token);
        }
        rule.check()?;
        Ok(rule)
    }

    /// The new name, if the rule fits.
    pub(super) fn apply(&self, key: &str, direction: Direction) -> Option<String> {
        let (from, to) = match direction {
            Direction::ToOther => (&self.official, &self.other),
            Direction::ToOfficial => (&self.other, &self.official),
        };
        let mut values = vec![Value::Number(0); self.captures.len()];
        if !self.fits(from, key, &mut values) {
            return None;
        }
        let part = |token: &Token| match token {
            Token::Literal(text) => text.clone(),
            Token::Capture { slot, shift } => match values[*slot] {
                Value::Number(n) => (n + shift).to_string(),
                Value::Text(text) => text.into(),
            },
        };
        Some(to.iter().map(part).collect())
    }

    fn fits<'k>(&self, tokens: &[Token], key: &'k str, values: &mut [Value<'k>]) -> bool {
        let Some((token, rest)) = tokens.split_first() else {
            return key.is_empty();
        };
        match token {
            Token::Literal(text) => key
                .strip_prefix(text.as_str())
                .is_some_and(|key| self.fits(rest, key, values)),
            Token::Capture { slot, shift } => match self.captures[*slot].kind {
                Kind::Number(least, most) => {
                    let Some((number, behind)) = number(key) else {
                        return false;
                    };
                    let number = number - shift;
                    values[*slot] = Value::Number(number);
                    (i64::from(least)..=i64::from(most)).contains(&number)
                        && self.fits(rest, behind, values)
                }
                Kind::Text => {
                    let ends = key.char_indices().map(|(at, c)| at + c.len_utf8());
                    ends.filter(|end| !rest.is_empty() || *end == key.len())
                        .any(|end| {
                            values[*slot] = Value::Text(&key[..end]);
                            self.fits(rest, &key[end..], values)
                        })
                }
            },
        }
    }

    fn official_token(&mut self, part: Part<'_>) -> Result<Token, String> {
        let inner = match part {
            Part::Literal(text) => return Ok(Token::Literal(text.into())),
            Part::Braces(inner) => inner,
        };
        let (name, kind) = match inner.split_once(':') {
            None => (inner, Kind::Text),
            Some((name, range)) => (
                name,
                range_of(range)
                    .ok_or_else(|| format!("{range:?} is not a range such as 2..3 or 3.."))?,
            ),
        };
        if name.contains(['+', '-']) {
            return Err(format!(
                "{{{inner}}}: shifts do not belong on the official side"
            ));
        }
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("{{{inner}}} has no proper name"));
        }
        if self.captures.iter().any(|c| c.name == name) {
            return Err(format!("{{{name}}} occurs twice on the official side"));
        }
        self.captures.push(Capture {
            name: name.into(),
            kind,
        });
        Ok(Token::Capture {
            slot: self.captures.len() - 1,
            shift: 0,
        })
    }

    fn other_token(&self, part: Part<'_>) -> Result<Token, String> {
        let inner = match part {
            Part::Literal(text) => return Ok(Token::Literal(text.into())),
            Part::Braces(inner) => inner,
        };
        let (name, shift) = match inner.find(['+', '-']) {
            None => (inner, 0),
            Some(at) => {
                let shift: i32 = inner[at..]
                    .parse()
                    .map_err(|_| format!("{:?} is not a shift", &inner[at..]))?;
                (&inner[..at], shift.into())
            }
        };
        let slot = self.captures.iter().position(|c| c.name == name);
        let slot = slot.ok_or_else(|| format!("{{{name}}} is unknown on the official side"))?;
        match self.captures[slot].kind {
            Kind::Text if shift != 0 => Err(format!("{{{name}}} is text and cannot be shifted")),
            Kind::Number(least, _) if i64::from(least) + shift < 0 => {
                Err(format!("{{{inner}}} can fall below 0"))
            }
            _ => Ok(Token::Capture { slot, shift }),
        }
    }

    /// Each capture once on the other side, and nothing that could be split in two ways.
    fn check(&self) -> Result<(), String> {
        for (slot, capture) in self.captures.iter().enumerate() {
            let uses = self
                .other
                .iter()
                .filter(|t| matches!(t, Token::Capture { slot: s, .. } if *s == slot))
                .count();
            match uses {
                0 => return Err(format!("the other side lacks {{{}}}", capture.name)),
                1 => {}
                _ => {
                    return Err(format!(
                        "{{{}}} occurs twice on the other side",
                        capture.name
                    ));
                }
            }
        }
        if self
            .captures
            .iter()
            .filter(|c| matches!(c.kind, Kind::Text))
            .count()
            > 2
        {
            return Err("more than two captures of text".into());
        }
        let together = |tokens: &[Token]| {
            tokens
                .windows(2)
                .any(|pair| pair.iter().all(|t| matches!(t, Token::Capture { .. })))
        };
        if together(&self.official) || together(&self.other) {
            return Err(
                "two captures stand together, with nothing that tells where one ends".into(),
            );
        }
        Ok(())
    }
}

enum Part<'r> {
    Literal(&'r str),
    Braces(&'r str),
}

fn parts(mut text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let open = text.find('{').unwrap_or(text.len());
        let (literal, rest) = text.split_at(open);
        if literal.contains('}') {
            return Err("a \"}\" that nothing opened".into());
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        text = rest;
        if let Some(rest) = rest.strip_prefix('{') {
            let (inner, behind) = rest.split_once('}').ok_or("a \"{\" that is never closed")?;
            parts.push(Part::Braces(inner));
            text = behind;
        }
    }
    Ok(parts)
}

fn range_of(text: &str) -> Option<Kind> {
    let (least, most) = text.split_once("..")?;
    let least = least.parse().ok()?;
    let most = if most.is_empty() {
        u32::MAX
    } else {
        most.parse().ok()?
    };
    (least <= most).then_some(Kind::Number(least, most))
}

/// A whole number at the start of `key`, as it would be printed (no leading zeros), and what is behind it.
fn number(key: &str) -> Option<(i64, &str)> {
    let digits = key.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, behind) = key.split_at(digits);
    let number: u32 = digits.parse().ok()?;
    (digits == "0" || !digits.starts_with('0')).then_some((i64::from(number), behind))
}
