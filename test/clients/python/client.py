"""Calls a sidecar through the stubs, beside grpcio's own packages of health and error details."""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from hoc.cus.policies.v1 import policy_rules_pb2, policy_rules_pb2_grpc, policy_rules_read_pb2, policy_rules_read_pb2_grpc
from hoc.cus.policies.v1 import transaction_pb2_grpc  # noqa: F401 - it imports all the others

with grpc.insecure_channel(sys.argv[1]) as channel:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(health.status))
    read = policy_rules_read_pb2_grpc.PolicyRulesReadServiceStub(channel)
    print(len(read.FetchPolicyRules(policy_rules_read_pb2.FetchPolicyRulesRequest(tenant_id="a")).items))
    try:
        policy_rules_pb2_grpc.PolicyRulesServiceStub(channel).Flush(policy_rules_pb2.FlushRequest())
    except grpc.RpcError as error:
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(error).details:
            if detail.Unpack(info):
                print(info.reason)
