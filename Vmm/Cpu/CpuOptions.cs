namespace Vmm.Cpu;

/// <summary>What the guest's processors can do besides what every guest's can.</summary>
internal sealed record CpuOptions
{
    /// <summary>A baseline that every feature beyond is hidden for.</summary>
    public CpuProfile Profile { get; init; }

    /// <summary>Whether the guest can run virtual machines of its own, by VMX or SVM.</summary>
    public bool Nested { get; init; }

    /// <summary>Whether the guest has performance counters.</summary>
    public bool Pmu { get; init; }

    /// <summary>Whether the guest has AMX. The process must have the host's permission (<see cref="AmxPermission"/>) before it makes a vCPU.</summary>
    public bool Amx { get; init; }
}

/// <summary>Baselines of the x86-64 psABI (version 1.0, table 3.1), with what every 64-bit kernel needs. Each has all of the lower ones.</summary>
internal enum CpuProfile
{
    /// <summary>None: all that this host's KVM lists.</summary>
    Host = 0,

    /// <summary>x86-64-v2: SSE4.2, CMPXCHG16B, POPCNT.</summary>
    V2 = 2,

    /// <summary>x86-64-v3: AVX2, BMI2, FMA, MOVBE.</summary>
    V3 = 3,

    /// <summary>x86-64-v4: AVX-512 F, BW, CD, DQ and VL.</summary>
    V4 = 4,
}
