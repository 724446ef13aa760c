"""What a region must have for the template: RDS's roots in the layer, and two endpoint services."""

from botocore.exceptions import ClientError

from deploy.questions import Questions, RefusedError
from deploy.template import ROOT

RDS_ROOTS = ROOT / "layers/single_connection/src/single_connection/rds_roots"
# Where RDS publishes its roots, by partition.
ROOTS_URL = {
    "aws": "https://truststore.pki.rds.amazonaws.com",
    "aws-us-gov": "https://truststore.pki.us-gov-west-1.rds.amazonaws.com",
    "aws-cn": "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn",
}


def check_region(asked: Questions) -> None:
    """The functions can verify a database there, and the network can be made there."""
    roots = RDS_ROOTS / f"{asked.region}.pem"
    if asked.makes_functions and not asked.parameter("DatabaseCaFile") and not roots.is_file():
        url = ROOTS_URL[partition_of(asked.region)]
        raise RefusedError(
            f"The layer ships no RDS roots of {asked.region}, so no function could verify the "
            f"database: put {url}/{asked.region}/{asked.region}-bundle.pem into "
            f"{roots.parent.relative_to(ROOT)}/ as {roots.name}."
        )
    if not (asked.makes_data and asked.is_new):
        return
    names = [f"com.amazonaws.{asked.region}.{service}" for service in ("s3", "secretsmanager")]
    client = asked.client("ec2")

    def describe() -> bool:
        try:
            client.describe_vpc_endpoint_services(ServiceNames=names)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "InvalidServiceName":
                return False
            raise
        return True

    if asked.ask("Endpoints", "ec2:DescribeVpcEndpointServices", describe) is False:
        raise RefusedError(
            f"{asked.region} has no endpoint of the name {' or '.join(names)}, so the template's "
            "network cannot be made there: bring a network and a database (docs/data.md)."
        )


def partition_of(region: str) -> str:
    """The part of AWS that a region belongs to."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"
