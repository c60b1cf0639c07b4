//! Broken BTF is an error or a missing fact: no panic, no endless walk.

use std::time::{Duration, Instant};

use super::super::btf::{Btf, BtfError};
use super::super::resolve_btf;
use super::builder::Builder;
use super::extract;

#[test]
fn truncated_at_any_length_is_an_error() {
    for name in ["5.10.218-amd64", "6.18.44-amd64", "7.3-rc7-arm64"] {
        let data = extract(name);
        for length in 0..data.len() {
            assert!(
                resolve_btf(&data[..length], &[], name).is_err(),
                "{name} cut at {length}"
            );
        }
        assert!(resolve_btf(&data, &[], name).is_ok());
    }
}

#[test]
fn any_word_replaced_is_answered_in_bounded_time() {
    let good = extract("6.18.44-amd64");
    let word_at = |at: usize| u32::from_le_bytes(good[at..at + 4].try_into().unwrap());
    let strings_at = 24 + word_at(16) as usize;
    let types = word_at(12) / 12;
    let mut refused = 0;
    for at in (0..strings_at).step_by(4) {
        let word = word_at(at);
        for bad in [0, types, !word, word ^ 1 << 24, word << 8] {
            let mut data = good.clone();
            data[at..at + 4].copy_from_slice(&bad.to_le_bytes());
            let start = Instant::now();
            refused += usize::from(resolve_btf(&data, &[], "broken").is_err());
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "byte {at}, word {bad:#x}"
            );
        }
    }
    // Many words decide what the records behind them are; an answer to all
    // would mean that nothing is checked.
    assert!(refused > 500, "{refused}");
}

#[test]
fn foreign_input_is_named_for_what_it_is() {
    let good = extract("6.18.44-amd64");
    let with = |at: usize, byte: u8| {
        let mut data = good.clone();
        data[at] = byte;
        Btf::parse(&data, None).map(|_| ()).unwrap_err()
    };
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert_eq!(Btf::parse(&swapped, None).unwrap_err(), BtfError::BigEndian);
    assert_eq!(with(2, 2), BtfError::Version(2));
    assert_eq!(with(24 + 7, 0x1f), BtfError::Kind { id: 1, kind: 31 });
    assert_eq!(with(good.len() - 1, b'x'), BtfError::Strings);
    assert_eq!(
        Btf::parse(b"\x7fELF", None).unwrap_err(),
        BtfError::Magic(0x457f)
    );
}

#[test]
fn a_typedef_of_itself_ends() {
    let mut b = Builder::new();
    let own = b.typedef("loop", 1);
    b.strct("bio", 64, &[("bi_next", own, 0)]);
    let error = resolve_btf(&b.build(), &[], "loop").unwrap_err();
    assert_eq!(
        error.to_string(),
        "parse BTF of the kernel image: type 1: nested too deeply"
    );
}

#[test]
fn a_struct_inside_itself_ends() {
    let mut b = Builder::new();
    b.strct("bio", 64, &[("", 1, 0), ("", 1, 0), ("", 1, 0)]);
    assert!(resolve_btf(&b.build(), &[], "loop").is_err());
}

#[test]
fn shared_anonymous_unions_take_no_exponential_time() {
    let mut b = Builder::new();
    let mut inner = b.strct("", 8, &[]);
    for _ in 0..14 {
        let members = [("", inner, 0); 8];
        inner = b.strct("", 8, &members);
    }
    b.strct("bio", 64, &[("", inner, 0)]);
    let start = Instant::now();
    assert!(resolve_btf(&b.build(), &[], "bomb").is_err());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn an_index_beyond_the_array_is_absent() {
    let mut b = Builder::new();
    let word = b.int("u64", 8);
    let array = b.raw("", 3, 0, 0, &[word, word, 2]);
    b.strct("pt_regs", 64, &[("regs", array, 16)]);
    let facts = resolve_btf(&b.build(), &[], "short").unwrap();
    assert_eq!(facts.get("pt_regs_arg1"), Some(24));
    assert_eq!(facts.get("pt_regs_arg2"), None);
}
