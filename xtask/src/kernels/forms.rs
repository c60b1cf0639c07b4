//! The forms that the hooks had on each kernel, for docs/KERNELS.md. In: what `check`
//! printed. Out: a table. Pure.

use serde_json::Value;

use super::page::Played;

/// A row a hook, a column a kernel and architecture.
pub fn render(results: &[Played]) -> String {
    let mut columns: Vec<(String, &Value)> = Vec::new();
    for (arch, _, stored) in results {
        let name = format!("{} {}", short(&stored.release), arch.name());
        if let Some(check) = &stored.check
            && !columns.iter().any(|(known, _)| *known == name)
        {
            columns.push((name, check));
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for (_, check) in &columns {
        for hook in check["hooks"].as_array().into_iter().flatten() {
            let name = hook["name"].as_str().unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let mut text = String::from("| hook |");
    for (name, _) in &columns {
        text.push_str(&format!(" {name} |"));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(columns.len()));
    text.push('\n');
    for name in names {
        text.push_str(&format!("| {name} |"));
        for (_, check) in &columns {
            text.push_str(&format!(" {} |", form(check, name)));
        }
        text.push('\n');
    }
    text
}

/// The form of a hook; `?` behind one that is attached and that no call of the
/// self-probe passed.
fn form(check: &Value, name: &str) -> String {
    let hooks = check["hooks"].as_array().map_or(&[][..], Vec::as_slice);
    let hook = hooks.iter().find(|hook| hook["name"] == name);
    let Some(hook) = hook.filter(|hook| !super::table::is_missing(hook)) else {
        return "-".to_owned();
    };
    let state = hook["state"].as_str().unwrap_or("-");
    match (hook["form"].as_str().unwrap_or_default(), state) {
        ("", state) => state.to_owned(),
        (form, "unproven") => format!("{form}?"),
        (form, _) => form.to_owned(),
    }
}

/// `6.12.95+deb12-cloud-amd64` → `6.12.95`.
fn short(release: &str) -> &str {
    let end = release.find(['+', '-']).unwrap_or(release.len());
    &release[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_says_whether_it_was_proven_and_a_hook_without_one_why() {
        let check = json!({"hooks": [
            {"name": "fsync", "state": "attached", "form": "fexit"},
            {"name": "jbd2_commit", "state": "unproven", "form": "tracepoint"},
            {"name": "btrfs_sync_file", "state": "waiting", "form": ""},
            {"name": "lock_contention", "state": "absent", "form": ""},
        ]});
        let shown = [
            "fsync",
            "jbd2_commit",
            "btrfs_sync_file",
            "lock_contention",
            "none",
        ]
        .map(|name| form(&check, name));
        assert_eq!(shown, ["fexit", "tracepoint?", "waiting", "-", "-"]);
        assert_eq!(short("6.12.95+deb12-cloud-amd64"), "6.12.95");
    }
}
