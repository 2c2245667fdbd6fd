//! How a sealed value is put together, as a plan describes it: `<nonce>.<ct>.<tag>`, `v1:<nonce><ct><tag>`.
//!
//! Placeholders are `<nonce>` (12 bytes), `<ct>` and `<tag>` (16 bytes). Those that stand side by side are one encoded string;
//! what stands between them is literal.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::plan::schema::Encoding;

/// The bytes of a nonce.
pub const NONCE: usize = 12;
/// The bytes of a tag.
pub const TAG: usize = 16;

/// One part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nonce,
    Ciphertext,
    Tag,
}

/// A layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// A literal before each group, and the group.
    groups: Vec<(String, Vec<Part>)>,
    /// The literal at the end.
    end: String,
    encoding: Encoding,
}

/// A value taken apart: what AES-256-GCM takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    /// The nonce.
    pub nonce: [u8; NONCE],
    /// The ciphertext with its tag behind it.
    pub sealed: Vec<u8>,
}

impl Layout {
    /// Reads a layout.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, encoding: Encoding) -> Result<Self, String> {
        let bad = |why: &str| format!("layout {text:?}: {why}");
        let mut groups: Vec<(String, Vec<Part>)> = Vec::new();
        let (mut literal, mut rest, mut seen) = (String::new(), text, Vec::new());
        let mut open = false;
        while let Some(first) = rest.chars().next() {
            let part = [("<nonce>", Part::Nonce), ("<ct>", Part::Ciphertext), ("<tag>", Part::Tag)]
                .into_iter()
                .find_map(|(word, part)| rest.strip_prefix(word).map(|after| (part, after)));
            let Some((part, after)) = part else {
                if first == '<' {
                    return Err(bad("expected <nonce>, <ct> or <tag>"));
                }
                literal.push(first);
                rest = &rest[first.len_utf8()..];
                open = false;
                continue;
            };
            if seen.contains(&part) {
                return Err(bad("a part stands twice"));
            }
            seen.push(part);
            match groups.last_mut().filter(|_| open) {
                Some((_, parts)) => parts.push(part),
                None => groups.push((std::mem::take(&mut literal), vec![part])),
            }
            open = true;
            rest = after;
        }
        if seen.len() != 3 {
            return Err(bad("expected each of <nonce>, <ct> and <tag> once"));
        }
        if encoding == Encoding::Raw && groups.len() > 1 {
            return Err(bad("raw bytes have no separators: expected the three parts side by side"));
        }
        Ok(Self { groups, end: literal, encoding })
    }

    /// Takes a value apart; `None` when it is not of this layout.
    pub fn split(&self, value: &[u8]) -> Option<Parts> {
        let mut rest = value;
        let (mut nonce, mut ciphertext, mut tag) = (None, None, None);
        for (at, (literal, parts)) in self.groups.iter().enumerate() {
            rest = rest.strip_prefix(literal.as_bytes())?;
            let until =
                self.groups.get(at + 1).map_or(self.end.as_bytes(), |(literal, _)| literal.as_bytes());
            let last = at + 1 == self.groups.len();
            let length = match until {
                [] => rest.len(),
                // The last one ends the value; others end at the first place where the next literal stands.
                _ if last => {
                    rest.len().checked_sub(until.len()).filter(|at| rest.ends_with(until) || *at == 0)?
                }
                _ => rest.windows(until.len()).position(|window| window == until)?,
            };
            let (piece, after) = rest.split_at(length);
            rest = after;
            let bytes = decode(piece, self.encoding)?;
            let fixed: usize = parts.iter().map(|part| fixed(*part)).sum();
            let free = bytes.len().checked_sub(fixed)?;
            let mut bytes = bytes.as_slice();
            for part in parts {
                let length = if *part == Part::Ciphertext { free } else { fixed_of(*part) };
                let (piece, after) = bytes.split_at_checked(length)?;
                bytes = after;
                match part {
                    Part::Nonce => nonce = Some(piece.try_into().ok()?),
                    Part::Ciphertext => ciphertext = Some(piece.to_vec()),
                    Part::Tag => tag = Some(piece.to_vec()),
                }
            }
            if !bytes.is_empty() {
                return None;
            }
        }
        if rest != self.end.as_bytes() {
            return None;
        }
        let (mut sealed, tag) = (ciphertext?, tag?);
        sealed.extend_from_slice(&tag);
        Some(Parts { nonce: nonce?, sealed })
    }
}

/// Returns how many bytes a part has where that is fixed.
const fn fixed(part: Part) -> usize {
    match part {
        Part::Ciphertext => 0,
        other => fixed_of(other),
    }
}

const fn fixed_of(part: Part) -> usize {
    match part {
        Part::Nonce => NONCE,
        Part::Tag => TAG,
        Part::Ciphertext => 0,
    }
}

/// Decodes bytes as they are spelt in a column; `None` when they are not.
pub fn decode(text: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    match encoding {
        Encoding::Raw => Some(text.to_vec()),
        Encoding::Hex => hex::decode(text).ok(),
        Encoding::Base64 => {
            let url = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
            let alphabet = if url { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
            GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(layout: &str, encoding: Encoding, value: &[u8]) -> Option<Parts> {
        Layout::parse(layout, encoding).unwrap().split(value)
    }

    #[test]
    fn usual_layouts_are_taken_apart() {
        let (nonce, ct, tag) = ([1_u8; NONCE], vec![2_u8; 5], vec![3_u8; TAG]);
        let want = || Some(Parts { nonce, sealed: [ct.as_slice(), &tag].concat() });
        let dotted = format!("{}.{}.{}", hex::encode(nonce), hex::encode(&ct), hex::encode(&tag));
        assert_eq!(parts("<nonce>.<ct>.<tag>", Encoding::Hex, dotted.as_bytes()), want());
        let packed = format!("v1:{}", hex::encode([nonce.as_slice(), &ct, &tag].concat()));
        assert_eq!(parts("v1:<nonce><ct><tag>", Encoding::Hex, packed.as_bytes()), want());
        let tag_first = [nonce.as_slice(), &tag, &ct].concat();
        assert_eq!(parts("<nonce><tag><ct>", Encoding::Raw, &tag_first), want());
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&tag_first);
        assert_eq!(parts("<nonce><tag><ct>", Encoding::Base64, text.as_bytes()), want());
        let mixed = format!("{}:{}", hex::encode(nonce), hex::encode([ct.as_slice(), &tag].concat()));
        assert_eq!(parts("<nonce>:<ct><tag>", Encoding::Hex, mixed.as_bytes()), want());
    }

    #[test]
    fn what_is_not_of_the_layout_is_none() {
        for value in [&b""[..], b"..", b"aa.bb.cc", b"plain text", b"zz"] {
            assert_eq!(parts("<nonce>.<ct>.<tag>", Encoding::Hex, value), None);
        }
    }

    #[test]
    fn layouts_that_cannot_be_are_refused() {
        for text in ["", "<nonce>.<ct>", "<nonce>.<ct>.<tag>.<tag>", "<iv>.<ct>.<tag>"] {
            assert!(Layout::parse(text, Encoding::Hex).is_err(), "{text}");
        }
        assert!(Layout::parse("<nonce>.<ct>.<tag>", Encoding::Raw).is_err());
    }
}
