//! Bytes as text for the lines between guest and host: base64 with padding
//! (RFC 4648, section 4). Pure; nothing else in the tree needs it, so no crate.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes → text.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for nth in 0..4 {
            if nth <= chunk.len() {
                let index = word >> (18 - 6 * nth) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Text → bytes; `None` if it is not what [`encode`] writes.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let chars = text.as_bytes();
    if !chars.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(chars.len() / 4 * 3);
    for (nth, chunk) in chars.chunks(4).enumerate() {
        let is_last = (nth + 1) * 4 == chars.len();
        let pads = chunk.iter().rev().take_while(|c| **c == b'=').count();
        if pads > 2 || (pads > 0 && !is_last) {
            return None;
        }
        let mut word = 0_u32;
        for c in &chunk[..4 - pads] {
            let index = ALPHABET.iter().position(|a| a == c)?;
            word = word << 6 | index as u32;
        }
        word <<= 6 * pads;
        bytes.extend_from_slice(&word.to_be_bytes()[1..4 - pads]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_hold_both_ways() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["Zg=", "Z===", "Zg==Zg==", "Z\u{e9}=", "Zm9v\n", "Zm9*"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
