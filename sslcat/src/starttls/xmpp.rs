//! RFC 6120, section 5.4. Of XML it takes no more than the tags: there may be no comments and the like (section 11.1).

use std::io;

use super::dialogue::{not_offered, refused, Dialogue};

const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";

/// For clients and for servers there are two namespaces; `to` is the domain whose server is wanted.
pub fn begin(dialogue: &mut Dialogue, namespace: &str, to: &str) -> io::Result<()> {
    let to = escaped(to);
    let hello = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{to}' version='1.0'>"
    );
    dialogue.send(&hello, hello.as_bytes())?;
    let mut offered = false;
    loop {
        let tag = tag(dialogue)?;
        match parts(&tag) {
            (false, "starttls") => offered |= tag.contains(TLS),
            (is_end, "features") if is_end || tag.ends_with("/>") => break,
            (false, "error") | (true, "stream") => return Err(why(dialogue, &tag)),
            _ => {}
        }
    }
    if !offered {
        return Err(not_offered());
    }
    let request = format!("<starttls xmlns='{TLS}'/>");
    dialogue.send(&request, request.as_bytes())?;
    let answer = tag(dialogue)?;
    if parts(&answer) != (false, "proceed") || !answer.contains(TLS) {
        return Err(why(dialogue, &answer));
    }
    // TLS begins behind its end, wherever that is.
    if answer.ends_with("/>") || parts(&tag(dialogue)?) == (true, "proceed") {
        return Ok(());
    }
    Err(refused(&answer))
}

/// The next tag, without the text before it.
fn tag(dialogue: &mut Dialogue) -> io::Result<String> {
    dialogue.hear_to(b'<')?;
    let mut tag = vec![b'<'];
    let mut quote = None;
    while quote.is_some() || tag.last() != Some(&b'>') {
        let byte = dialogue.byte()?;
        match quote {
            Some(open) if open == byte => quote = None,
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            _ => {}
        }
        tag.push(byte);
    }
    Ok(dialogue.heard(&tag))
}

/// Whether it is the end of an element, or else the begin of one (or both); and the element's name without its prefix.
fn parts(tag: &str) -> (bool, &str) {
    let inside = tag.trim_start_matches('<').trim_end_matches(['>', '/']);
    let (is_end, inside) = inside.strip_prefix('/').map_or((false, inside), |name| (true, name));
    let name = inside.split(char::is_whitespace).next().unwrap_or_default();
    (is_end, name.split_once(':').map_or(name, |(_, name)| name))
}

/// What was refused, if the server says that: it is the first element in its `<stream:error>`.
fn why(dialogue: &mut Dialogue, answer: &str) -> io::Error {
    match parts(answer) {
        (false, "error" | "failure") if !answer.ends_with("/>") => {
            tag(dialogue).map_or_else(|error| error, |tag| refused(&tag))
        }
        _ => refused(answer),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;").replace('"', "&quot;")
}
