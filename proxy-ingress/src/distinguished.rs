//! Names of certificates as text: RFC 4514, the most specific part first, as nginx writes them. Nothing in it can be taken for
//! another part, or for another header.

use std::fmt::Write as _;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The name; ASCII only.
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for part in name.iter() {
        parts.push(part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let name = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
    format!("{name}={}", escaped(attribute.as_slice()))
}

/// With a backslash before what means something, and other bytes in hexadecimal.
fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for (place, byte) in value.iter().enumerate() {
        let at_end = place == 0 || place + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(*byte)]),
            b'#' if place == 0 => text.push_str("\\#"),
            b' ' if at_end => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => {
                // Writing to a String cannot fail.
                let _written = write!(text, "\\{other:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn the_most_specific_part_comes_first_and_nothing_breaks_out() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "A, B+C=\"D\"");
        params
            .distinguished_name
            .push(DnType::CommonName, " #mü\r\nx-admin: 1\0");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = X509Certificate::from_der(made.der()).unwrap();
        assert_eq!(
            text(parsed.subject()),
            r#"CN=\ #m\C3\BC\0D\0Ax-admin: 1\00,O=A\, B\+C=\"D\",C=DE"#
        );
    }
}
