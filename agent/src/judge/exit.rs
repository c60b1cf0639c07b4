//! The exit code of a run that could run. In: what it found and what was
//! missing. Out: the code. (2, could not run, is the caller's.)

/// 1 if there were findings, else 3 if a required hook was missing, else 0.
#[must_use]
pub fn exit_code(findings: u64, required_hook_missing: bool) -> u8 {
    match (findings, required_hook_missing) {
        (1.., _) => 1,
        (0, true) => 3,
        (0, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_win_over_a_missing_hook() {
        assert_eq!(exit_code(0, false), 0);
        assert_eq!(exit_code(0, true), 3);
        assert_eq!(exit_code(2, true), 1);
    }
}
