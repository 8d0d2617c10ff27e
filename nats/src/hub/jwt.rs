//! NATS JWTs: claims of an operator, an account and a user, signed with an nkey. Version 2 of
//! the format only, and only the fields that fleet sets. Pure: the time is an argument.

use std::collections::BTreeMap;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha512_256};

use super::permission::Template;

/// What every NATS JWT says; `nats` depends on its kind.
#[derive(Serialize)]
struct Claims<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    jti: &'a str,
    iat: i64,
    iss: &'a str,
    name: &'a str,
    sub: &'a str,
    nats: &'a serde_json::Value,
}

/// What is read back from a JWT that came in a file.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Subject {
    /// Name of the user.
    pub(crate) name: String,
    /// Public key of the user.
    pub(crate) sub: String,
    /// Public key that signed it.
    pub(crate) iss: String,
}

/// A scoped signing key: users signed with it have exactly the rights of the template.
pub(crate) struct Scope<'a> {
    pub(crate) role: &'a str,
    pub(crate) key: &'a KeyPair,
    pub(crate) template: Template,
}

pub(crate) fn operator(
    issued_at: i64,
    operator: &KeyPair,
    system_account: &KeyPair,
) -> Result<String, nkeys::error::Error> {
    let nats = json!({
        "type": "operator",
        "version": 2,
        "system_account": system_account.public_key(),
    });
    encode(issued_at, operator, "fleet", &operator.public_key(), &nats)
}

/// An account. With `jetstream` it may store as much as the server allows. `revoked` are users by
/// their public keys: what was issued to them up to that second is not let in.
pub(crate) fn account(
    issued_at: i64,
    operator: &KeyPair,
    account: &KeyPair,
    name: &str,
    jetstream: bool,
    scopes: &[Scope<'_>],
    revoked: &BTreeMap<String, i64>,
) -> Result<String, nkeys::error::Error> {
    let store = if jetstream { -1 } else { 0 };
    let signing_keys: Vec<_> = scopes
        .iter()
        .map(|scope| {
            json!({
                "kind": "user_scope",
                "key": scope.key.public_key(),
                "role": scope.role,
                "template": scope.template.to_json(),
            })
        })
        .collect();
    let mut nats = json!({
        "type": "account",
        "version": 2,
        "limits": {
            "subs": -1, "data": -1, "payload": -1,
            "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1,
            "mem_storage": store, "disk_storage": store, "streams": store, "consumer": store,
        },
        "signing_keys": signing_keys,
    });
    if !revoked.is_empty() {
        nats["revocations"] = json!(revoked);
    }
    encode(issued_at, operator, name, &account.public_key(), &nats)
}

/// A user of the account, signed by the account itself or by one of its scoped keys. A scoped
/// user carries no rights of its own: the server takes them from the key's template.
pub(crate) fn user(
    issued_at: i64,
    signer: &KeyPair,
    account: &KeyPair,
    user: &KeyPair,
    name: &str,
    scoped: bool,
) -> Result<String, nkeys::error::Error> {
    let mut nats = json!({ "type": "user", "version": 2 });
    if scoped {
        nats["issuer_account"] = account.public_key().into();
    } else {
        nats["subs"] = (-1).into();
        nats["data"] = (-1).into();
        nats["payload"] = (-1).into();
    }
    encode(issued_at, signer, name, &user.public_key(), &nats)
}

/// Reads who a JWT speaks of. Its signature is the server's business.
pub(crate) fn subject(jwt: &str) -> Option<Subject> {
    let payload = jwt.split('.').nth(1)?;
    let bytes = BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn encode(
    issued_at: i64,
    signer: &KeyPair,
    name: &str,
    subject: &str,
    nats: &serde_json::Value,
) -> Result<String, nkeys::error::Error> {
    let issuer = signer.public_key();
    let mut claims = Claims {
        jti: "",
        iat: issued_at,
        iss: &issuer,
        name,
        sub: subject,
        nats,
    };
    // The id is a hash of the claims without it, as the format says.
    let id = BASE32_NOPAD.encode(&Sha512_256::digest(to_json(&claims)));
    claims.jti = &id;
    let header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let body = BASE64URL_NOPAD.encode(&to_json(&claims));
    let signed = format!("{header}.{body}");
    let signature = BASE64URL_NOPAD.encode(&signer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

fn to_json(claims: &Claims<'_>) -> Vec<u8> {
    // Maps with text keys and numbers always serialize.
    serde_json::to_vec(claims).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_by_its_issuer_and_names_its_subject() {
        let account = KeyPair::new_account();
        let key = KeyPair::new_user();
        let jwt = user(1_700_000_000, &account, &account, &key, "studio", false).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        account.verify(signed.as_bytes(), &signature).unwrap();
        let subject = subject(&jwt).unwrap();
        assert_eq!(
            (subject.name, subject.sub, subject.iss),
            ("studio".into(), key.public_key(), account.public_key())
        );
    }

    #[test]
    fn what_is_no_token_has_no_subject() {
        for text in ["", "a", "a.b", "a.e30.c", "..", "a.!.c"] {
            assert!(subject(text).is_none(), "{text}");
        }
    }
}
