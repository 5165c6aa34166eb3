using Vmm.Kvm;

namespace Vmm.Machine;

/// <summary>What a vCPU thread tells its machine. Called on that thread; must not block or throw.</summary>
internal interface IVcpuEvents
{
    /// <summary>The vCPU shut down after a triple fault; its thread ends.</summary>
    void TripleFault(int index, string place);

    /// <summary>KVM reports an event of the whole machine; the thread ends.</summary>
    void SystemEvent(KvmSystemEvent systemEvent);

    /// <summary>The vCPU touches a part of a file that is not there any more; its thread tries again until it is.</summary>
    void Waits(int index);

    /// <summary>The vCPU cannot go on; its thread ends.</summary>
    void Failed(Exception reason);
}
