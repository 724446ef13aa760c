"""A certificate authority for one database: what RDS has, so that nothing turns verification off.

RSA with 2048 bits, like RDS's default `rds-ca-rsa2048-g1`: handshakes cost here what they cost
there. Each database has an authority of its own, so another's is a wrong one.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# From this machine, from a container on it, and from another service of compose.yaml.
NAMES = ("localhost", "127.0.0.1", "::1", "host.docker.internal", "database")
LIFETIME = dt.timedelta(days=30)


@dataclass(frozen=True)
class Certificates:
    """The files a TLS server and its clients need, PEM."""

    ca_file: Path  # for clients
    certificate_file: Path
    key_file: Path  # mode 600


def write_certificates(directory: Path, names: tuple[str, ...] = NAMES) -> Certificates:
    """Make an authority and a server certificate for `names`; the authority's key is forgotten."""
    now = dt.datetime.now(dt.UTC)
    authority_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    authority = _name("Throw-away database CA")
    authority_certificate = (
        _builder(authority, authority, authority_key.public_key(), authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = (
        _builder(_name(names[0]), authority, key.public_key(), authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    directory.mkdir(parents=True, exist_ok=True)
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    files.key_file.touch(mode=0o600)
    files.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    pem = serialization.Encoding.PEM
    files.ca_file.write_bytes(authority_certificate.public_bytes(pem))
    files.certificate_file.write_bytes(certificate.public_bytes(pem))
    return files


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey,
    issuer_key: rsa.RSAPublicKey,
    now: dt.datetime,
) -> x509.CertificateBuilder:
    """What both have; Python 3.13 verifies strictly, and wants both key identifiers."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A container's clock may be behind.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
