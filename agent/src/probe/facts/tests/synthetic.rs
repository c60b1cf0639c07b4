//! Cases that no extract has: kernels before 5.10.137, modules' split BTF, types
//! that contradict each other, widths that the programs don't read.

use super::super::btf::Btf;
use super::super::catalog::{Catalog, Role};
use super::super::{ResolvedFacts, resolve_btf};
use super::builder::Builder;
use super::extract;

fn resolved(builder: &Builder) -> ResolvedFacts {
    resolve_btf(&builder.build(), &[], "synthetic").unwrap()
}

fn why<'f>(facts: &'f ResolvedFacts, name: &str) -> &'f str {
    facts
        .missing
        .iter()
        .find(|missing| missing.name == name)
        .map_or("known", |missing| &missing.why)
}

#[test]
fn request_is_the_second_argument_where_the_queue_comes_first() {
    let mut b = Builder::new();
    let (queue, request) = (b.strct("request_queue", 8, &[]), b.strct("request", 8, &[]));
    let (queue, request) = (b.pointer(queue), b.pointer(request));
    b.event("block_rq_issue", &[queue, request]);
    let facts = resolved(&b);
    assert_eq!(facts.get("arg_issue_rq"), Some(1));
    let args = ["struct request_queue *", "struct request *"].map(str::to_owned);
    assert_eq!(facts.events[0].args, Some(args.to_vec()));
    assert_eq!(why(&facts, "arg_requeue_rq"), "no event block_rq_requeue");
}

#[test]
fn completion_status_of_an_unknown_type_is_not_guessed() {
    let mut b = Builder::new();
    let request = b.strct("request", 8, &[]);
    let (request, status) = (b.pointer(request), b.int("long", 8));
    b.event("block_rq_complete", &[request, status]);
    assert_eq!(
        why(&resolved(&b), "complete_status_is_errno"),
        "unexpected arguments of block_rq_complete"
    );
}

#[test]
fn types_of_one_name_that_disagree_leave_the_fact_unknown() {
    let mut b = Builder::new();
    let pointer = b.pointer(0);
    b.strct(
        "bio",
        64,
        &[("bi_private", pointer, 8), ("bi_end_io", pointer, 16)],
    );
    b.strct(
        "bio",
        64,
        &[("bi_private", pointer, 24), ("bi_end_io", pointer, 16)],
    );
    b.strct("bio", 4, &[]);
    let facts = resolved(&b);
    assert_eq!(facts.get("bio_bi_end_io"), Some(16));
    assert_eq!(
        why(&facts, "bio_bi_private"),
        "bio.bi_private differs between types of the same name"
    );
}

#[test]
fn a_member_of_another_width_is_refused() {
    let mut b = Builder::new();
    let word = b.int("unsigned int", 4);
    b.strct("inode", 64, &[("i_ino", word, 8)]);
    assert_eq!(
        why(&resolved(&b), "inode_i_ino"),
        "inode.i_ino has 4 bytes, not 8"
    );
}

#[test]
fn members_are_found_below_anonymous_ones_and_through_typedefs() {
    let mut b = Builder::new();
    let word = b.int("unsigned int", 4);
    let deepest = b.strct("", 8, &[("bi_size", word, 4)]);
    let middle = b.strct("", 16, &[("", deepest, 8)]);
    let iter = b.typedef("bvec_iter_t", middle);
    let holder = b.strct("", 32, &[("bi_iter", iter, 16)]);
    b.strct("bio", 64, &[("", holder, 32)]);
    assert_eq!(resolved(&b).get("bio_bi_size"), Some(32 + 16 + 8 + 4));
}

/// A module with `struct xfs_inode { char pad[40]; struct inode i_vnode; }`,
/// whose `struct inode` and `struct xfs_inode`'s event argument are the base's.
fn module_over(base: &[u8]) -> Vec<u8> {
    let btf = Btf::parse(base, None).unwrap();
    let inode = Catalog::build(&btf)
        .unwrap()
        .ids(Role::Struct, "inode")
        .next()
        .unwrap();
    let strings = u32::from_le_bytes(base[20..24].try_into().unwrap());
    let mut b = Builder::over(btf.types().count() as u32, strings);
    let xfs_inode = b.strct("xfs_inode", 1024, &[("i_vnode", inode, 40)]);
    let pointer = b.pointer(xfs_inode);
    b.event("xfs_file_fsync", &[pointer]);
    b.build()
}

#[test]
fn a_modules_btf_adds_what_the_image_lacks() {
    let base = extract("6.12.101-amd64");
    let module = module_over(&base);
    let facts = resolve_btf(&base, &[("xfs", &module)], "6.12").unwrap();
    assert_eq!(facts.get("xfs_inode_i_vnode"), Some(40));
    assert_eq!(facts.missing_for(&["event:xfs_file_fsync"]), []);
    assert!(facts.notes.is_empty(), "{:?}", facts.notes);
}

#[test]
fn a_broken_modules_btf_is_noted_and_costs_nothing_else() {
    let base = extract("6.12.101-amd64");
    let module = module_over(&base);
    for length in 0..module.len() {
        let facts = resolve_btf(&base, &[("xfs", &module[..length])], "6.12").unwrap();
        assert_eq!(facts.notes.len(), 1, "cut at {length}");
        assert!(
            facts.notes[0].starts_with("parse BTF of module xfs: "),
            "{}",
            facts.notes[0]
        );
        assert_eq!(facts.get("request_bio"), Some(56), "cut at {length}");
    }
}

#[test]
fn a_module_of_another_kernel_is_refused() {
    let module = module_over(&extract("6.12.101-amd64"));
    let other = extract("7.3-rc7-amd64");
    let facts = resolve_btf(&other, &[("xfs", &module)], "7.3").unwrap();
    assert_eq!(facts.get("xfs_inode_i_vnode"), None);
    assert_eq!(facts.notes.len(), 1);
    assert!(facts.modules.is_empty());
}
