namespace Vmm.Devices.Platform;

/// <summary>What a guest can ask of, or tell, the machine as a whole.</summary>
public enum MachineEvent
{
    /// <summary>The guest switched itself off.</summary>
    PowerOff,

    /// <summary>The guest asked for a reset.</summary>
    Reset,

    /// <summary>The guest's kernel panicked.</summary>
    Panic,

    /// <summary>The guest's kernel panicked, and a crash kernel takes over: the guest goes on until that ends it.</summary>
    CrashKernel,
}

/// <summary>Where platform devices report what concerns the whole machine.</summary>
public interface IMachineEvents
{
    /// <summary>Reports <paramref name="machineEvent"/>. The vCPU that caused it executes no further guest instruction once its exit
    /// has been handled. From any vCPU thread; must not block.</summary>
    void Raise(MachineEvent machineEvent);
}
