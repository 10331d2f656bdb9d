package hoc.cus.policies.client;

import hoc.cus.policies.v1.ConflictResolverServiceGrpc;
import hoc.cus.policies.v1.PolicyArbitratorServiceGrpc;
import hoc.cus.policies.v1.PolicyEngineServiceGrpc;
import hoc.cus.policies.v1.PolicyGraphServiceGrpc;
import hoc.cus.policies.v1.PolicyProposalReadServiceGrpc;
import hoc.cus.policies.v1.PolicyProposalWriteServiceGrpc;
import hoc.cus.policies.v1.PolicyReadServiceGrpc;
import hoc.cus.policies.v1.PolicyRulesReadServiceGrpc;
import hoc.cus.policies.v1.PolicyRulesServiceGrpc;
import hoc.cus.policies.v1.ProposalsReadServiceGrpc;
import hoc.cus.policies.v1.RecoveryMatcherServiceGrpc;
import hoc.cus.policies.v1.RecoveryWriteServiceGrpc;
import hoc.cus.policies.v1.ScopeResolverServiceGrpc;
import hoc.cus.policies.v1.SymbolTableServiceGrpc;
import io.grpc.Channel;

/** The stubs of the data-access drivers; what is called through them is told by itself where it belongs. */
public abstract class Services {
  final Channel channel;

  Services(Channel channel) {
    this.channel = channel;
  }

  public ConflictResolverServiceGrpc.ConflictResolverServiceBlockingStub conflictResolver() {
    return ConflictResolverServiceGrpc.newBlockingStub(channel);
  }

  public PolicyArbitratorServiceGrpc.PolicyArbitratorServiceBlockingStub policyArbitrator() {
    return PolicyArbitratorServiceGrpc.newBlockingStub(channel);
  }

  public PolicyEngineServiceGrpc.PolicyEngineServiceBlockingStub policyEngine() {
    return PolicyEngineServiceGrpc.newBlockingStub(channel);
  }

  public PolicyGraphServiceGrpc.PolicyGraphServiceBlockingStub policyGraph() {
    return PolicyGraphServiceGrpc.newBlockingStub(channel);
  }

  public PolicyProposalReadServiceGrpc.PolicyProposalReadServiceBlockingStub policyProposalRead() {
    return PolicyProposalReadServiceGrpc.newBlockingStub(channel);
  }

  public PolicyProposalWriteServiceGrpc.PolicyProposalWriteServiceBlockingStub policyProposalWrite() {
    return PolicyProposalWriteServiceGrpc.newBlockingStub(channel);
  }

  public PolicyReadServiceGrpc.PolicyReadServiceBlockingStub policyRead() {
    return PolicyReadServiceGrpc.newBlockingStub(channel);
  }

  public PolicyRulesReadServiceGrpc.PolicyRulesReadServiceBlockingStub policyRulesRead() {
    return PolicyRulesReadServiceGrpc.newBlockingStub(channel);
  }

  public PolicyRulesServiceGrpc.PolicyRulesServiceBlockingStub policyRules() {
    return PolicyRulesServiceGrpc.newBlockingStub(channel);
  }

  public ProposalsReadServiceGrpc.ProposalsReadServiceBlockingStub proposalsRead() {
    return ProposalsReadServiceGrpc.newBlockingStub(channel);
  }

  public RecoveryMatcherServiceGrpc.RecoveryMatcherServiceBlockingStub recoveryMatcher() {
    return RecoveryMatcherServiceGrpc.newBlockingStub(channel);
  }

  public RecoveryWriteServiceGrpc.RecoveryWriteServiceBlockingStub recoveryWrite() {
    return RecoveryWriteServiceGrpc.newBlockingStub(channel);
  }

  public ScopeResolverServiceGrpc.ScopeResolverServiceBlockingStub scopeResolver() {
    return ScopeResolverServiceGrpc.newBlockingStub(channel);
  }

  public SymbolTableServiceGrpc.SymbolTableServiceBlockingStub symbolTable() {
    return SymbolTableServiceGrpc.newBlockingStub(channel);
  }
}
