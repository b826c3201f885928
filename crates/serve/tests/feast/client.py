"""Feast's own client against a served project: what it writes is what it reads. Asked for by tests/http/feast.rs.

Arguments: the server's URL, and an empty folder for the feature repository.
"""

import math
import os
import sys
from datetime import datetime, timedelta, timezone

os.environ["FEAST_USAGE"] = "False"

import pandas as pd
import requests
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException, PushSourceNotFoundException
from feast.infra.online_stores.remote import get_remote_online_features
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

URL, FOLDER = sys.argv[1:]
NOW = datetime.now(timezone.utc).replace(microsecond=123456)
OLD = datetime(2020, 1, 1, tzinfo=timezone.utc)

frame = pd.DataFrame(
    {
        "card_id": pd.Series([1, 2, 3], dtype="int64"),
        "whole": pd.Series([2**53 + 1, -7, -(2**63)], dtype="int64"),
        "small": pd.Series([2147483647, -2147483648, 0], dtype="int32"),
        "wide": [0.1, -1e300, 5e-324],
        "narrow": pd.Series([0.1, 3.4e38, 1e-45], dtype="float32"),
        "yes": [True, False, True],
        "text": ['grün "quote" \\ and \n line', "", None],
        "when": [OLD + timedelta(seconds=7), OLD, NOW.replace(microsecond=0)],
        "event_timestamp": [NOW, OLD, NOW],
        "created": [NOW, NOW, NOW],
    }
)
TYPES = {"whole": Int64, "small": Int32, "wide": Float64, "narrow": Float32, "yes": Bool, "text": String, "when": UnixTimestamp}

store = FeatureStore(
    config=RepoConfig(
        project="millstream",
        registry=os.path.join(FOLDER, "registry.db"),
        provider="local",
        online_store={"type": "remote", "path": URL, "connection_retries": 0},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
)
path = os.path.join(FOLDER, "cards.parquet")
frame.to_parquet(path)
card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
batch = FileSource(path=path, timestamp_field="event_timestamp", created_timestamp_column="created")
schema = [Field(name="card_id", dtype=Int64)] + [Field(name=name, dtype=kind) for name, kind in TYPES.items()]
cards = FeatureView(name="cards", entities=[card], schema=schema, source=batch, ttl=timedelta(0))
visits = FeatureView(
    name="visits",
    entities=[card, shop],
    schema=[Field(name="card_id", dtype=Int64), Field(name="shop_id", dtype=String), Field(name="count", dtype=Int64)],
    source=PushSource(name="visits", batch_source=batch),
)
missing = FeatureView(name="absent", entities=[card], schema=[Field(name="x", dtype=Int64)], source=batch)
store.apply([card, shop, cards, visits, missing, FeatureService(name="risk", features=[cards]), FeatureService(name="no_such", features=[cards])])

store.write_to_online_store("cards", df=frame)


def statuses(response, feature):
    at = list(response.proto.metadata.feature_names.val).index(feature)
    return [FieldStatus.Name(status) for status in response.proto.results[at].statuses]


def same(have, want):
    if isinstance(want, float):
        return math.isclose(have, want, rel_tol=0, abs_tol=0)
    return have == want and type(have) is type(want)


def check(what, have, want):
    if not (len(have) == len(want) and all(same(a, b) for a, b in zip(have, want))):
        sys.exit(f"{what}: {have!r}, not {want!r}")


def rows(*cards_asked):
    return [{"card_id": card_asked} for card_asked in cards_asked]


# Every type of value, as it was written; keys without a row; nulls.
wanted = {
    "card_id": [1, 2, 3, 4],
    "whole": [2**53 + 1, -7, -(2**63), None],
    "small": [2147483647, -2147483648, 0, None],
    "wide": [0.1, -1e300, 5e-324, None],
    "narrow": [float(frame["narrow"][i]) for i in range(3)] + [None],
    "yes": [True, False, True, None],
    "text": list(frame["text"]) + [None],
    "when": [int(moment.timestamp()) for moment in frame["when"]] + [None],
}
response = store.get_online_features(features=[f"cards:{name}" for name in TYPES], entity_rows=rows(1, 2, 3, 4))
have = response.to_dict()
for name, values in wanted.items():
    check(name, have[name], values)
check("statuses", statuses(response, "whole"), ["PRESENT", "PRESENT", "PRESENT", "NOT_FOUND"])
check("statuses", statuses(response, "text"), ["PRESENT", "PRESENT", "NULL_VALUE", "NOT_FOUND"])

# What Feast's provider asks when features are computed on its own side.
from feast.infra.key_encoding_utils import serialize_entity_key  # noqa: E402,F401
from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: E402
from feast.protos.feast.types.Value_pb2 import Value  # noqa: E402

keys = [EntityKey(join_keys=["card_id"], entity_values=[Value(int64_val=key)]) for key in (1, 9)]
online = store._get_provider().online_read(config=store.config, table=cards, entity_keys=keys, requested_features=list(TYPES))
check("event time", [online[0][0]], [NOW])
check("online_read", [online[0][1]["narrow"].float_val, online[0][1]["when"].unix_timestamp_val], [wanted["narrow"][0], wanted["when"][0]])
check("online_read", [online[1][1]["whole"].WhichOneof("val")], [None])

# A feature service, whose rows may be too old; full names; a column that is computed.
response = store.get_online_features(features=store.get_feature_service("risk"), entity_rows=rows(1, 2, 9), full_feature_names=True)
have = response.to_dict()
check("service", list(have), ["card_id", "cards__wide", "cards__small", "risk__twice"])
check("service", have["cards__wide"], [0.1, None, None])
check("service", have["risk__twice"], [0.2, None, None])
check("statuses", statuses(response, "cards__wide"), ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"])

# Two keys, and rows that are pushed.
pushed = {"card_id": [1, 1], "shop_id": ["a", "b"], "count": [3, 4], "event_timestamp": ["2026-01-01 10:59:42", "2026-01-01T10:59:42"], "other": [1, 2]}
answer = requests.post(f"{URL}/push", json={"push_source_name": "visits", "df": pushed, "to": "online"})
check("push", [answer.status_code, answer.content], [200, b""])
asked = [{"card_id": 1, "shop_id": "b"}, {"card_id": 1, "shop_id": "c"}, {"card_id": 1, "shop_id": "a"}]
have = store.get_online_features(features=["visits:count", "cards:small"], entity_rows=asked).to_dict()
check("two keys", have["count"], [4, None, 3])
check("two sets", have["small"], [2147483647] * 3)

# Errors are the exceptions that Feast's own server would have raised.
for error, call in [
    (FeatureViewNotFoundException, lambda: store.get_online_features(features=["absent:x"], entity_rows=rows(1))),
    (FeatureServiceNotFoundException, lambda: store.get_online_features(features=store.get_feature_service("no_such"), entity_rows=rows(1))),
    (FeatureViewNotFoundException, lambda: store.write_to_online_store("absent", df=frame.assign(x=1)[["card_id", "x", "event_timestamp", "created"]])),
]:
    try:
        call()
    except error as raised:
        assert str(raised), error
    else:
        sys.exit(f"no {error.__name__}")
answer = requests.post(f"{URL}/push", json={"push_source_name": "vists", "df": pushed})
check("push", [answer.status_code], [422])
raised = PushSourceNotFoundException.from_error_detail(answer.json())
check("push", [type(raised), str(raised)], [PushSourceNotFoundException, "no feature view `vists`; did you mean `visits`?"])
check("health", [requests.get(f"{URL}/health").status_code], [200])
print("the same")
