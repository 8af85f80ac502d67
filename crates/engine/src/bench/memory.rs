//! How much memory this process holds, and held at most. Known on Linux; nothing is known elsewhere.

use std::fs;

/// Forgets what was held before: the most from here on is counted.
pub fn restart() {
    // Where the system refuses (other systems, some containers) the most includes what was before: never too little.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Bytes of data held now. The program itself, of which more is read in the more of it runs, is not counted.
pub fn data() -> Option<u64> {
    Some(field("VmRSS:")?.saturating_sub(field("RssFile:")?))
}

/// Most bytes of data held since the last [`restart`].
pub fn most_data() -> Option<u64> {
    Some(most()?.saturating_sub(field("RssFile:")?))
}

/// Most bytes held since the last [`restart`], the program itself among them.
pub fn most() -> Option<u64> {
    field("VmHWM:")
}

fn field(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    parse(&status, name)
}

/// The value of a line `VmRSS:     1234 kB`, in bytes.
fn parse(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_status_are_read_in_kilobytes() {
        let status = "Name:\trunner\nVmHWM:\t    2048 kB\nVmRSS:\t     512 kB\n";
        assert_eq!((parse(status, "VmRSS:"), parse(status, "VmHWM:")), (Some(512 << 10), Some(2 << 20)));
        assert_eq!((parse(status, "VmSwap:"), parse("VmRSS: much", "VmRSS:")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_touched_is_held() {
        let before = data().unwrap();
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(data().unwrap() >= before + (60 << 20), "{}", touched.len());
        drop(touched);
        assert!(most().unwrap() >= most_data().unwrap() && most_data().unwrap() >= before + (60 << 20));
    }
}
