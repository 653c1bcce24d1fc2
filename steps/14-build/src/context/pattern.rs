//! Stand-in.
use anyhow::Result;
/// Stand-in.
#[derive(Debug)]
pub struct Pattern(String);
impl Pattern {
    /// Stand-in.
    pub fn new(text: &str) -> Result<Self> {
        Ok(Pattern(text.to_owned()))
    }
    /// Stand-in.
    pub fn matches(&self, name: &str) -> bool {
        fn go(p: &[u8], n: &[u8]) -> bool {
            match p {
                [] => n.is_empty(),
                [b'*', rest @ ..] => (0..=n.len()).any(|at| go(rest, &n[at..])),
                [b'?', rest @ ..] => !n.is_empty() && go(rest, &n[1..]),
                [c, rest @ ..] => n.first() == Some(c) && go(rest, &n[1..]),
            }
        }
        go(self.0.as_bytes(), name.as_bytes())
    }
}
