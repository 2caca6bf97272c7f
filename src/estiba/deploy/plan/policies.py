"""Keys, the log of predictions and limits in containers: the stores that model servers share, and the first key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import msgspec

from estiba.core.addresses import is_loopback
from estiba.core.errors import BadProject
from estiba.core.suggest import did_you_mean
from estiba.core.variables import CACHE_STORE, KEYS, LIMITS_STORE, SERVER_KEY_FILE, STATE
from estiba.deploy.plan.plan import API_KEY, STATE_FOLDER, Plan, Policies, Service
from estiba.deploy.plan.references import references
from estiba.deploy.plan.service_options import Condition, ServiceOptions
from estiba.gateway.options import MEMORY, CacheOptions, GatewayOptions, LimitsOptions, has_limits, needs_keys
from estiba.state.options import POSTGRES, StateOptions, shown, without_password_file

SQLITE_URL = f"sqlite:///{STATE_FOLDER}/state.db"
"""URL of the state store on the volume of the only container."""

VOLUME = "state"

_PASSWORD = "POSTGRES_PASSWORD_FILE"


@dataclass(frozen=True)
class Reach:
    """The callers of model servers on a target, and the number of their containers.

    Args:
        address: that the servers are published at; a loopback address where only this machine, or only services of the
            plan, can reach them.
        replicas: the most containers of one server.
        setting: the key of the project file that allows several; empty where there is one.
    """

    address: str
    replicas: int = 1
    setting: str = ""


def describe(options: GatewayOptions, state: StateOptions, services: Mapping[str, ServiceOptions]) -> Policies:
    """The policies of a project whose servers need a state store in containers.

    Raises:
        BadProject: the service of `[state]` is no PostgreSQL, or containers cannot use the URL.
    """
    if state.service:
        return Policies(options, "postgres", _url_of(state.service, services), state.service)
    if state.url.startswith(POSTGRES):
        _check_url(state.url)
        return Policies(options, "postgres", state.url)
    return Policies(options, "sqlite", SQLITE_URL)


def apply(plan: Plan, reach: Reach) -> Plan:
    """The plan for a target: model servers have the state store, and the secret file of the first key.

    Raises:
        BadProject: several containers would share an SQLite file, or count limits apart.
        EstibaError: others could use the models without a key, and the project file does not allow it.
    """
    server = msgspec.structs.replace(plan.server, host=reach.address)
    policies = replace(plan.policies, needs_keys=needs_keys(plan.policies.options, server))
    if not any(service.models for service in plan.services):
        return plan
    plan = _with_limits(plan, policies.options.limits, reach)
    plan = _with_cache(plan, policies.options.cache)
    if not (policies.needs_keys or policies.options.log.enabled or policies.drift.enabled):
        return replace(plan, policies=policies)
    if policies.store == "sqlite":
        _check_single(plan, reach)
    condition: Condition = "healthy"
    if policies.service and plan[policies.service].health is None:
        condition = "started"
    services = (
        _server(service, policies, condition) if service.models else with_metrics_key(service, policies)
        for service in plan.services
    )
    return replace(plan, policies=policies, services=tuple(services))


def _with_limits(plan: Plan, limits: LimitsOptions, reach: Reach) -> Plan:
    """The plan whose model servers count limits together; raises BadProject where they would count apart."""
    if limits.service:
        url = _url_of_redis(plan, limits.service, "gateway.limits")
        return _with_redis(plan, LIMITS_STORE, url, plan[limits.service])
    if limits.store:
        _check_redis(limits.store, "gateway.limits")
    elif has_limits(limits):
        servers = [service.name for service in plan.services if service.models]
        if len(servers) > 1 or reach.replicas > 1:
            count = f"{len(servers)} serve models" if len(servers) > 1 else f"up to {reach.replicas} may run"
            allowing = "" if len(servers) > 1 else f"; or allow one container: {reach.setting}"
            raise BadProject(
                f"gateway.limits: each container would count alone, and allow all of a limit. Here {count}.",
                hint=f"Name a Redis service of the project: service in [gateway.limits]; or a server: store{allowing}.",
            )
    return plan


def _with_cache(plan: Plan, cache: CacheOptions) -> Plan:
    """The plan whose model servers share the answers that they keep, where the project names a store for them."""
    if not cache.enabled:
        return plan
    if cache.service:
        url = _url_of_redis(plan, cache.service, "gateway.cache", database=1)
        return _with_redis(plan, CACHE_STORE, url, plan[cache.service])
    if cache.store != MEMORY:
        _check_redis(cache.store, "gateway.cache")
    return plan


def _url_of_redis(plan: Plan, name: str, section: str, *, database: int = 0) -> str:
    """The URL, with references, of a Redis service that a section of the project file names."""
    if name not in [service.name for service in plan.services]:
        known = [service.name for service in plan.services if not service.models]
        hint = f"Services: {', '.join(known) or 'none'}."
        raise BadProject(f"{section}.service: there is no service {name!r}{did_you_mean(name, known)}", hint=hint)
    if plan[name].port is None:
        hint = 'Give it `port`, or an image such as "redis:8".'
        raise BadProject(f"{section}.service: {name} has no port.", hint=hint)
    return f"redis://${{services.{name}.host}}:${{services.{name}.port}}/{database}"


def _with_redis(plan: Plan, variable: str, url: str, redis: Service) -> Plan:
    """The plan whose model servers use Redis. They start after it, and answer without it all the same."""
    condition: Condition = "started" if redis.health is None else "healthy"

    def connected(server: Service) -> Service:
        environment, needs = {**server.environment, variable: url}, {**server.needs, redis.name: condition}
        return replace(server, environment=environment, needs=needs)

    return replace(plan, services=tuple(connected(each) if each.models else each for each in plan.services))


def _check_redis(url: str, section: str) -> None:
    """Raise BadProject where containers cannot use the URL of a Redis server."""
    parts = urlsplit(url)
    if parts.password:
        raise BadProject(
            f"{section}.store: its password would be readable in images and in `docker inspect`.",
            hint=f"Name a Redis service of the project without one, service in [{section}], which only the plan's "
            "services reach.",
        )
    if is_loopback(parts.hostname or ""):
        raise BadProject(
            f"{section}.store: {url} means the container itself.",
            hint="Use the name that containers reach it by; or, for a service of the project, service.",
        )


def _server(service: Service, policies: Policies, condition: Condition) -> Service:
    environment = {STATE: policies.url}
    secrets = {reference.name for reference in references(policies.url, "state.url") if reference.kind == "secrets"}
    if policies.needs_keys:
        environment |= {KEYS: "required", SERVER_KEY_FILE: f"${{secrets.{API_KEY}}}"}
        secrets.add(API_KEY)
    volumes = {VOLUME: STATE_FOLDER} if policies.store == "sqlite" else {}
    needs = {policies.service: condition} if policies.service else {}
    return replace(
        service,
        environment={**service.environment, **environment},
        secrets=tuple(dict.fromkeys((*service.secrets, *sorted(secrets)))),
        volumes={**service.volumes, **volumes},
        needs={**service.needs, **needs},
    )


def with_metrics_key(service: Service, policies: Policies) -> Service:
    """The service with the secret of the key if it is Prometheus, as metrics need a key too."""
    if not policies.needs_keys or not any(file.generated == "prometheus" for file in service.files.values()):
        return service
    return replace(service, secrets=tuple(dict.fromkeys((*service.secrets, API_KEY))))


def _check_single(plan: Plan, reach: Reach) -> None:
    servers = [service.name for service in plan.services if service.models]
    if len(servers) > 1:
        raise BadProject(
            "state: keys and the log of predictions would be in an SQLite file, which only one container can use: they "
            f"may run on different machines, and would damage it. Here {len(servers)} serve models: "
            f"{', '.join(servers)}.",
            hint="Name a PostgreSQL service of the project: service in [state]; or a database: url in [state].",
        )
    if reach.replicas > 1:
        raise BadProject(
            "state: keys and the log of predictions would be in an SQLite file, which only one container can use: they "
            f"may run on different machines, and would damage it. Here up to {reach.replicas} may run.",
            hint="Name a PostgreSQL service of the project, service in [state], or a database, url in [state]; or "
            f"allow one container: {reach.setting}.",
        )


def _url_of(name: str, services: Mapping[str, ServiceOptions]) -> str:
    """The URL, with references, of the database of a PostgreSQL service."""
    options = services.get(name)
    if options is None:
        meant, known = did_you_mean(name, services), ", ".join(services) or "none"
        raise BadProject(f"state.service: there is no service {name!r}{meant}", hint=f"Services: {known}.")
    environment = options.environment
    if options.port is None:
        hint = 'Give it `port`, or an image such as "postgres:17".'
        raise BadProject(f"state.service: {name} has no port.", hint=hint)
    user = environment.get("POSTGRES_USER", "postgres")
    database = environment.get("POSTGRES_DB", user)
    address = f"postgresql://{user}@${{services.{name}.host}}:${{services.{name}.port}}/{database}"
    if environment.get("POSTGRES_HOST_AUTH_METHOD") == "trust":
        return address
    secrets = [ref for ref in references(environment.get(_PASSWORD, ""), f"services.{name}") if ref.kind == "secrets"]
    if not secrets:
        hint = f'Set {_PASSWORD} = "${{secrets.{name}-password}}" in its environment.'
        raise BadProject(f"state.service: {name} does not read its password from a secret.", hint=hint)
    return f"{address}?password_file=${{secrets.{secrets[0].name}}}"


def _check_url(url: str) -> None:
    """Raise BadProject where containers cannot use the URL of a PostgreSQL database."""
    parts = urlsplit(url)
    if parts.password:
        raise BadProject(
            f"state.url: the password of {shown(url)} would be readable in files and in `docker inspect`.",
            hint="Write it into the secret file .estiba/secrets/state-password, and end the URL with "
            "?password_file=${secrets.state-password} instead.",
        )
    if not parts.hostname or is_loopback(parts.hostname):
        raise BadProject(
            f"state.url: {shown(url)} means the container itself.",
            hint="Use the name that containers reach it by; or, for a service of the project, service in [state].",
        )
    file = without_password_file(url)[1]
    if file and not any(reference.kind == "secrets" for reference in references(file, "state.url")):
        raise BadProject(
            f"state.url: containers do not have the file {file}.", hint="Use password_file=${secrets.NAME}."
        )
