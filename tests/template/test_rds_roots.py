"""The certificates that the layer trusts are RDS's own, one file for each region."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy import region
from deploy.template import ROOT

ROOTS = ROOT / "layers" / "single_connection" / "src" / "single_connection" / "rds_roots"
FILES = sorted(ROOTS.glob("*.pem"))
KINDS = {"RSA2048", "RSA4096", "ECC384"}
TEN_YEARS = timedelta(days=3653)


def kind(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA{key.key_size}"
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return f"ECC{key.key_size}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_region_has_its_three_roots_and_no_other(path: Path) -> None:
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    assert [kind(certificate) for certificate in certificates] == ["RSA2048", "RSA4096", "ECC384"]
    for certificate in certificates:
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.value.ca
        [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        assert name.value == f"Amazon RDS {path.stem} Root CA {kind(certificate)} G1"
        [owner] = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        assert owner.value == "Amazon Web Services, Inc."
        assert certificate.not_valid_before_utc < datetime.now(UTC)
        assert certificate.not_valid_after_utc > datetime.now(UTC) + TEN_YEARS


def test_the_roots_are_where_the_preflight_looks_for_them() -> None:
    assert region.RDS_ROOTS == ROOTS
    assert FILES
