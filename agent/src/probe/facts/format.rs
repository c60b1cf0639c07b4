//! The `format` file of a classic tracepoint in tracefs: where in the record its
//! fields are. In: the file's text; out: offsets. Files are read in `live`.

/// One field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'t> {
    /// Its name, without the length of an array.
    pub name: &'t str,
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

/// Fields in the order of the file; lines that are not fields are passed over.
pub fn parse_fields(text: &str) -> impl Iterator<Item = Field<'_>> {
    text.lines().filter_map(|line| {
        let mut parts = line.trim().split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?;
        let mut number = |key| {
            parts
                .next()?
                .strip_prefix(key)?
                .strip_prefix(':')?
                .parse()
                .ok()
        };
        let (offset, size) = (number("offset")?, number("size")?);
        let name = declaration.split('[').next()?.rsplit([' ', '*']).next()?;
        Some(Field { name, offset, size })
    })
}

/// Offset of the first syscall argument in a `sys_enter_*` record, where each
/// argument has 8 bytes and they follow each other.
pub fn parse_enter_args(text: &str) -> Option<u32> {
    let mut args = parse_fields(text)
        .skip_while(|field| field.name != "__syscall_nr")
        .skip(1);
    let first = args.next().filter(|field| field.size == 8)?;
    // 7.x appends the text of pointer arguments: fields of other sizes end the list.
    let in_order = args
        .take_while(|field| field.size == 8)
        .zip(1..)
        .all(|(field, nth)| field.offset == first.offset + 8 * nth);
    in_order.then_some(first.offset)
}

/// Offset of the return value in a `sys_exit_*` record.
pub fn parse_exit_ret(text: &str) -> Option<u32> {
    parse_fields(text)
        .find(|field| field.name == "ret" && field.size == 8)
        .map(|field| field.offset)
}

/// Offset of a field of that name and size.
pub fn parse_offset(text: &str, name: &str, size: u32) -> Option<u32> {
    parse_fields(text)
        .find(|field| field.name == name && field.size == size)
        .map(|field| field.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name: sys_enter_msync
ID: 621
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
";

    fn enter(rest: &str) -> Option<u32> {
        parse_enter_args(&format!(
            "{HEAD}{rest}\n\nprint fmt: \"start: 0x%08lx\", ((unsigned long)(REC->start))\n"
        ))
    }

    #[test]
    fn first_argument_follows_the_syscall_number() {
        let args = "\tfield:unsigned long start;\toffset:16;\tsize:8;\tsigned:0;
\tfield:size_t len;\toffset:24;\tsize:8;\tsigned:0;
\tfield:int flags;\toffset:32;\tsize:8;\tsigned:0;";
        assert_eq!(enter(args), Some(16));
    }

    #[test]
    fn arguments_out_of_line_are_refused() {
        let args = "\tfield:unsigned long start;\toffset:16;\tsize:8;\tsigned:0;
\tfield:size_t len;\toffset:32;\tsize:8;\tsigned:0;";
        assert_eq!(enter(args), None);
        assert_eq!(
            enter("\tfield:int fd;\toffset:12;\tsize:4;\tsigned:0;"),
            None
        );
        assert_eq!(enter(""), None);
    }

    #[test]
    fn return_value_is_found() {
        let text = format!("{HEAD}\tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n");
        assert_eq!(parse_exit_ret(&text), Some(16));
        assert_eq!(parse_exit_ret(HEAD), None);
    }

    #[test]
    fn pointers_and_arrays_lose_their_marks() {
        let text = "\tfield:const char * path;\toffset:16;\tsize:8;\tsigned:0;
\tfield:char comm[16];\toffset:24;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:x;\tsize:4;\tsigned:0;";
        let names: Vec<_> = parse_fields(text).map(|field| field.name).collect();
        assert_eq!(names, ["path", "comm"]);
    }
}
