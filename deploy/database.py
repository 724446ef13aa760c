"""What is asked about the kind of database that will be made: class, version, zones, parameters."""

from deploy.questions import Questions, RefusedError

# Where the small t3 is not offered, its Graviton sibling of the same memory is.
SIBLINGS = {"db.t2.": "db.t4g.", "db.t3.": "db.t4g.", "db.t4g.": "db.t3."}
SLEEPING = "aurora.serverless"


def choose_class(asked: Questions) -> None:
    """The class as it is wanted, or its sibling; zones in which it can be had."""
    wanted = asked.parameter("DatabaseInstanceClass")
    refuse_another_engine(asked, wanted)
    candidates = [wanted]
    for prefix, other in SIBLINGS.items():
        if wanted.startswith(prefix) and asked.is_new:
            candidates.append(wanted.replace(prefix, other))
    engine, version = engine_of(asked, wanted)
    for name in candidates:
        provisioned = asked.budget(name).provisioned
        offered = orderable(asked, engine, provisioned, version)
        if offered is None:
            return
        if offered and settle_zones(asked, offered):
            standing = "" if name == provisioned else f", which {name} stands for"
            asked.say("Database", f"{provisioned}{standing}, {engine} {version}: can be ordered")
            if name != wanted:
                asked.parameters["DatabaseInstanceClass"] = name
            return
    raise RefusedError(
        f"RDS offers no {wanted} with {engine} {version} in this stack's availability zones of "
        f"{asked.region}: choose another DatabaseInstanceClass, AvailabilityZones or region."
    )


def refuse_another_engine(asked: Questions, wanted: str) -> None:
    """Between an instance and Aurora there is no update: the one would be removed for the other."""
    has = asked.deployed.get("DatabaseInstanceClass")
    if has and (has == SLEEPING) != (wanted == SLEEPING):
        raise RefusedError(
            f"The database of {asked.stack} is {has} and would be removed for {wanted}: deploy "
            "that under another stack_name and bring the data over, as docs/cost.md says."
        )


def engine_of(asked: Questions, wanted: str) -> tuple[str, str]:
    """The engine, and the minor version RDS takes for the template's, or for none."""
    name = "DatabaseCluster" if wanted == SLEEPING else "DatabaseInstance"
    properties = asked.template["Resources"][name]["Properties"]
    engine, major = str(properties["Engine"]), str(properties.get("EngineVersion", ""))
    given = {"EngineVersion": major} if major else {}
    answer = asked.ask(
        "Version",
        "rds:DescribeDBEngineVersions",
        lambda: asked.client("rds").describe_db_engine_versions(
            Engine=engine, DefaultOnly=True, **given
        ),
    )
    if answer is None:
        return engine, major
    versions: list[dict[str, str]] = answer["DBEngineVersions"]
    if not versions:
        raise RefusedError(
            f"RDS offers no {engine} {major} in {asked.region}: set EngineVersion and Family in "
            "template.yaml to one that `aws rds describe-db-engine-versions` lists."
        )
    return engine, versions[0]["EngineVersion"]


def orderable(asked: Questions, engine: str, instance_class: str, version: str) -> set[str] | None:
    """The zones in which RDS makes it; None if that may not be asked."""
    options = asked.ask(
        "Database",
        "rds:DescribeOrderableDBInstanceOptions",
        lambda: asked.client("rds").describe_orderable_db_instance_options(
            Engine=engine,
            DBInstanceClass=instance_class,
            Vpc=True,
            **({"EngineVersion": version} if version else {}),
        ),
    )
    if options is None:
        return None
    return {
        zone["Name"]
        for option in options["OrderableDBInstanceOptions"]
        for zone in option["AvailabilityZones"]
    }


def settle_zones(asked: Questions, offered: set[str]) -> bool:
    """Whether one of the stack's zones is among `offered`; a new stack takes other zones if not."""
    zones = asked.ask(
        "Zones",
        "ec2:DescribeAvailabilityZones",
        lambda: asked.client("ec2").describe_availability_zones(
            Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}]
        ),
    )
    if zones is None:
        return True
    every = sorted(zone["ZoneName"] for zone in zones["AvailabilityZones"])
    chosen = asked.parameter("AvailabilityZones")
    ours = chosen.split(",") if chosen else every[:2]
    if offered.intersection(ours):
        return True
    if chosen or not asked.is_new or len(every) < 2:
        return False
    first = min(offered)
    second = next(zone for zone in every if zone != first)
    asked.parameters["AvailabilityZones"] = f"{first},{second}"
    asked.say("Zones", f"{first} and {second}: the database is not offered in {' or '.join(ours)}")
    return True


def check_parameters(asked: Questions) -> None:
    """All that the parameter group sets may be set."""
    sleeps = asked.parameter("DatabaseInstanceClass") == SLEEPING
    name = "ClusterInstanceParameters" if sleeps else "DatabaseParameters"
    group = asked.template["Resources"][name]["Properties"]
    family = group["Family"]

    def describe() -> set[str]:
        pages = asked.client("rds").get_paginator("describe_engine_default_parameters")
        return {
            parameter["ParameterName"]
            for page in pages.paginate(DBParameterGroupFamily=family)
            for parameter in page["EngineDefaults"]["Parameters"]
            if parameter.get("IsModifiable")
        }

    changeable = asked.ask("Parameters", "rds:DescribeEngineDefaultParameters", describe)
    if changeable is None:
        return
    if refused := sorted(set(group["Parameters"]) - changeable):
        raise RefusedError(
            f"RDS lets nobody change {', '.join(refused)} in {family}: remove that from {name} in "
            "template.yaml."
        )
    asked.say("Parameters", f"all {len(group['Parameters'])} may be set in {family}")
