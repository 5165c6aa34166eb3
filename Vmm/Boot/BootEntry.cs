namespace Vmm.Boot;

/// <summary>The processor state that a loaded kernel expects.</summary>
internal enum BootMode
{
    /// <summary>Long mode with identity paging, RSI = boot_params.</summary>
    Long64,

    /// <summary>Flat 32-bit protected mode without paging, EBX = hvm_start_info.</summary>
    Pvh32,
}

/// <summary>Where the first vCPU begins.</summary>
/// <param name="Mode">Its mode.</param>
/// <param name="InstructionPointer">The guest-physical address of the first instruction.</param>
/// <param name="InfoAddress">What RSI or EBX points to: boot_params or hvm_start_info.</param>
internal readonly record struct BootEntry(BootMode Mode, ulong InstructionPointer, ulong InfoAddress);
