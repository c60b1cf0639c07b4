//! Addresses of functions from /proc/kallsyms, read as a stream (it has several
//! megabytes and no index). In: the reader and names; out: one address a name,
//! 0 where it is absent or hidden (kernel.kptr_restrict prints zeros).

use std::io::{self, BufRead};

/// Longest line kept; symbol names have at most 511 bytes.
const MAX_LINE: usize = 1024;

/// Addresses of text symbols, in the order of `names`. Stops reading once all
/// are found; the first match counts.
pub fn read_addresses<const N: usize>(
    mut kallsyms: impl BufRead,
    names: [&str; N],
) -> io::Result<[u64; N]> {
    let mut found = [None; N];
    let mut carry = Vec::with_capacity(MAX_LINE);
    loop {
        let chunk = kallsyms.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        let length = chunk.len();
        for piece in chunk.split_inclusive(|&b| b == b'\n') {
            if carry.is_empty() && piece.ends_with(b"\n") {
                note_line(piece, &names, &mut found);
                continue;
            }
            let room = MAX_LINE.saturating_sub(carry.len());
            carry.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                note_line(&carry, &names, &mut found);
                carry.clear();
            }
        }
        kallsyms.consume(length);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    note_line(&carry, &names, &mut found);
    Ok(found.map(Option::unwrap_or_default))
}

/// `ffffffff81805640 t ext4_end_bio`, and a tab and `[ext4]` if it is a module's.
fn note_line(line: &[u8], names: &[&str], found: &mut [Option<u64>]) {
    let mut words = line.splitn(3, |&b| b == b' ');
    let (Some(address), Some(b"t" | b"T"), Some(rest)) = (words.next(), words.next(), words.next())
    else {
        return;
    };
    let end = rest
        .iter()
        .position(|b| b.is_ascii_whitespace())
        .unwrap_or(rest.len());
    let Some(at) = names
        .iter()
        .position(|name| name.as_bytes() == base_name(&rest[..end]))
    else {
        return;
    };
    let text = str::from_utf8(address).unwrap_or_default();
    if found[at].is_none()
        && let Ok(address) = u64::from_str_radix(text, 16)
    {
        found[at] = Some(address);
    }
}

/// Clang's link-time optimisation renames static functions to `name.llvm.HASH`;
/// GCC's suffixes (`.cold`, `.isra.0`) are other code than the function whose
/// address a bio carries, and stay.
fn base_name(name: &[u8]) -> &[u8] {
    let suffix = b".llvm.";
    match name.windows(suffix.len()).position(|w| w == suffix) {
        Some(at) => &name[..at],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    const NAMES: [&str; 2] = ["iomap_dio_bio_end_io", "ext4_end_bio"];
    const TEXT: &str = "ffffffff81788de0 T __pfx_iomap_dio_bio_end_io
ffffffff81788df0 T iomap_dio_bio_end_io
ffffffff81788f00 d ext4_end_bio
ffffffff81788f10 t ext4_end_bio.cold
ffffffffc0405640 t ext4_end_bio\t[ext4]
";

    #[test]
    fn exact_text_symbols_are_found_whatever_the_buffer_size() {
        for capacity in 1..200 {
            let reader = BufReader::with_capacity(capacity, TEXT.as_bytes());
            let found = read_addresses(reader, NAMES).unwrap();
            assert_eq!(
                found,
                [0xffff_ffff_8178_8df0, 0xffff_ffff_c040_5640],
                "buffer of {capacity}"
            );
        }
    }

    #[test]
    fn hidden_and_absent_addresses_are_zero() {
        let text = "0000000000000000 t ext4_end_bio\n";
        assert_eq!(read_addresses(text.as_bytes(), NAMES).unwrap(), [0, 0]);
    }

    #[test]
    fn a_name_changed_by_clang_is_the_same_function() {
        let text = "ffffffff81000010 t ext4_end_bio.llvm.1234567";
        assert_eq!(
            read_addresses(text.as_bytes(), NAMES).unwrap(),
            [0, 0xffff_ffff_8100_0010]
        );
    }

    #[test]
    fn an_endless_line_takes_no_more_than_its_bound() {
        let text = [b'x'; 100_000];
        assert_eq!(read_addresses(&text[..], NAMES).unwrap(), [0, 0]);
    }
}
