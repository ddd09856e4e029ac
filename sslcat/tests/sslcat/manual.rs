//! What is made from the command line.

use crate::tool::is_here;
use crate::tool_alone;

#[test]
fn the_manual_page_has_each_option_and_can_be_read() {
    let ended = tool_alone().args(&["--man"]).feed(b"").end();
    assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
    let help = tool_alone().args(&["--help"]).feed(b"").end();
    let options: Vec<_> = help.stdout().split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert!(options.len() > 10, "{help:?}");
    let page = ended.stdout().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
    for option in options {
        let option = option.trim_matches(|c: char| !c.is_alphanumeric() && c != '-');
        assert!(page.contains(option), "no {option} in the manual page");
    }
    assert!(page.contains("Exit codes:"));
    if is_here("groff", &["--version"]) {
        let mut groff = crate::tool::Tool::new(std::path::Path::new("groff"));
        groff = groff.args(&["-man", "-Tutf8", "-ww"]).feed(&ended.stdout);
        let formatted = groff.end();
        assert_eq!((formatted.code, formatted.stderr()), (0, ""), "{formatted:?}");
        assert!(formatted.stdout().contains("close_notify"), "{formatted:?}");
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = tool_alone().args(&["--completions", shell]).feed(b"").end();
        assert_eq!((ended.code, ended.stderr()), (0, ""), "{shell}: {ended:?}");
        assert!(ended.stdout().contains("starttls"), "{shell}: {ended:?}");
    }
    // What a user has with `source <(sslcat --completions bash)`.
    let script = tool_alone().args(&["--completions", "bash"]).feed(b"").end();
    let line = format!(
        "{}\nCOMP_WORDS=(sslcat --starttls im) COMP_CWORD=2; _sslcat sslcat im --starttls; echo \"<${{COMPREPLY[*]}}>\"",
        script.stdout()
    );
    let completed = crate::tool::Tool::new(std::path::Path::new("bash")).args(&["-c", &line]).feed(b"").end();
    assert_eq!(completed.stdout(), "<imap>\n", "{completed:?}");
}
