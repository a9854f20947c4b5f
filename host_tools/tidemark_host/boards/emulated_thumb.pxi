# The instructions that firmware is made of, executed where code and data lie in RAM, flash or
# boot ROM; included by emulated_loop.pyx. Everything else (peripherals, exceptions, special
# registers, what is not aligned, a shift by no bits) is left to the emulator's own core, whose
# cycles and flags these are: tests/boards/test_emulated_thumb.py compares the two.
# Encodings and flags: ARMv6-M Architecture Reference Manual, A5.2 and A6.7.

cdef inline unsigned int half(const unsigned char* at) noexcept:
    cdef unsigned short value
    memcpy(&value, at, 2)
    return value


cdef inline unsigned int word(const unsigned char* at) noexcept:
    cdef unsigned int value
    memcpy(&value, at, 4)
    return value


cdef inline unsigned int added(CortexM0Core core, unsigned int a, unsigned int b, unsigned int carry) noexcept:
    """Return a + b + carry and set all flags."""
    cdef unsigned long long whole = <unsigned long long>a + b + carry
    cdef unsigned int result = <unsigned int>whole
    core.n = result >> 31
    core.z = result == 0
    core.c = (whole >> 32) != 0
    core.v = ((a ^ result) & (b ^ result)) >> 31
    return result


cdef inline unsigned int judged(CortexM0Core core, unsigned int result) noexcept:
    """Return it, and set N and Z."""
    core.n = result >> 31
    core.z = result == 0
    return result


cdef inline bint holds(CortexM0Core core, unsigned int condition) noexcept:
    if condition == 0:
        return core.z
    if condition == 1:
        return not core.z
    if condition == 2:
        return core.c
    if condition == 3:
        return not core.c
    if condition == 4:
        return core.n
    if condition == 5:
        return not core.n
    if condition == 6:
        return core.v
    if condition == 7:
        return not core.v
    if condition == 8:
        return core.c and not core.z
    if condition == 9:
        return not core.c or core.z
    if condition == 10:
        return core.n == core.v
    if condition == 11:
        return core.n != core.v
    if condition == 12:
        return core.n == core.v and not core.z
    return core.n != core.v or core.z


@cython.final
cdef class Memory:
    """Where the chip's memories lie in the host's."""

    cdef unsigned char* ram
    cdef unsigned char* flash
    cdef unsigned char* rom
    cdef unsigned int ram_size, flash_size, rom_size

    def __init__(self, RP2040 mcu):
        self.ram = &mcu._sram[0]
        self.ram_size = mcu.ram_byte_size
        self.flash = &mcu._flash[0]
        self.flash_size = mcu.flash_byte_size
        self.rom = <unsigned char*>&mcu._bootrom[0]
        self.rom_size = mcu.bootrom_byte_size

    cdef inline unsigned char* readable(self, unsigned int address) noexcept:
        """Return where an address lies; NULL: not in a memory."""
        if address - RAM < self.ram_size:
            return self.ram + (address - RAM)
        if address - FLASH < self.flash_size:
            return self.flash + (address - FLASH)
        if address < self.rom_size:
            return self.rom + address
        return NULL

    cdef inline unsigned char* writable(self, unsigned int address) noexcept:
        if address - RAM < self.ram_size:
            return self.ram + (address - RAM)
        return NULL


cdef inline int load(Memory memory, Bus bus, unsigned int* target, unsigned int address, unsigned int size) except -1:
    """Load `size` bytes, zero-extended; return the cycles, 0: left to the core."""
    cdef unsigned char* at
    if address & (size - 1):
        return 0
    at = memory.readable(address)
    if at == NULL:
        return bus.read(address, target) if size == 4 else 0
    if size == 4:
        target[0] = word(at)
    elif size == 2:
        target[0] = half(at)
    else:
        target[0] = at[0]
    return 2


cdef inline int store(Memory memory, Bus bus, unsigned int value, unsigned int address, unsigned int size) except -1:
    """Store the low `size` bytes; return the cycles, 0: left to the core."""
    cdef unsigned char* at
    cdef unsigned short low
    if address & (size - 1):
        return 0
    at = memory.writable(address)
    if at == NULL:
        return bus.write(address, value) if size == 4 else 0
    if size == 4:
        memcpy(at, &value, 4)
    elif size == 2:
        low = <unsigned short>value
        memcpy(at, &low, 2)
    else:
        at[0] = <unsigned char>value
    return 2


cdef inline int several(Memory memory, unsigned int* r, unsigned int mask, unsigned int address, bint loads) noexcept:
    """Load or store the low registers of a mask; return how many, -1: left to the core."""
    cdef unsigned int count = 0
    cdef unsigned int i
    cdef unsigned char* at
    for i in range(8):
        count += (mask >> i) & 1
    if not count:
        return 0
    if address & 3 or address + 4 * count < address:
        return -1
    at = memory.readable(address) if loads else memory.writable(address)
    # The last one, too: memories lie far from each other.
    if at == NULL or (memory.readable(address + 4 * count - 4) == NULL):
        return -1
    for i in range(8):
        if mask & (1 << i):
            if loads:
                r[i] = word(at)
            else:
                memcpy(at, &r[i], 4)
            at += 4
    return count


cdef inline int execute(CortexM0Core core, Memory memory, Bus bus, unsigned int* r) except -1:
    """Execute the next instruction; return the cycles it takes, 0: left to the core."""
    cdef unsigned int pc = r[15] & 0xFFFFFFFEU
    cdef unsigned char* code = memory.readable(pc)
    cdef unsigned int op, kind, a, b, rd, rm, second, address, mask
    cdef int took, count
    if code == NULL:
        return 0
    op = half(code)
    kind = op >> 11
    rd = op & 7
    rm = (op >> 3) & 7
    took = 1
    if kind == 0:  # LSLS by a constant
        a = r[rm]
        b = (op >> 6) & 31
        if b:
            core.c = (a >> (32 - b)) & 1
        r[rd] = judged(core, a << b)
    elif kind == 1:  # LSRS
        a = r[rm]
        b = (op >> 6) & 31
        if b:
            core.c = (a >> (b - 1)) & 1
            r[rd] = judged(core, a >> b)
        else:
            core.c = a >> 31
            r[rd] = judged(core, 0)
    elif kind == 2:  # ASRS
        a = r[rm]
        b = (op >> 6) & 31
        if b:
            core.c = (a >> (b - 1)) & 1
            r[rd] = judged(core, <unsigned int>(<int>a >> b))
        else:
            core.c = a >> 31
            r[rd] = judged(core, 0xFFFFFFFFU if a >> 31 else 0)
    elif kind == 3:  # ADDS, SUBS of three
        b = (op >> 6) & 7
        if not op & 0x400:
            b = r[b]
        if op & 0x200:
            r[rd] = added(core, r[rm], ~b, 1)
        else:
            r[rd] = added(core, r[rm], b, 0)
    elif kind == 4:  # MOVS
        r[(op >> 8) & 7] = judged(core, op & 0xFF)
    elif kind == 5:  # CMP
        added(core, r[(op >> 8) & 7], ~(op & 0xFF), 1)
    elif kind == 6:  # ADDS
        rd = (op >> 8) & 7
        r[rd] = added(core, r[rd], op & 0xFF, 0)
    elif kind == 7:  # SUBS
        rd = (op >> 8) & 7
        r[rd] = added(core, r[rd], ~(op & 0xFF), 1)
    elif kind == 8:
        if op < 0x4400:
            if not compute(core, r, (op >> 6) & 15, rd, rm):
                return 0
        else:
            return special(core, r, op, pc)
    elif kind == 9:  # LDR of a literal
        took = load(memory, bus, &r[(op >> 8) & 7], ((pc + 4) & 0xFFFFFFFCU) + ((op & 0xFF) << 2), 4)
    elif kind == 10 or kind == 11:  # address in two registers
        took = indexed(memory, bus, r, op)
    elif kind == 12:
        took = store(memory, bus, r[rd], r[rm] + ((op >> 4) & 0x7C), 4)
    elif kind == 13:
        took = load(memory, bus, &r[rd], r[rm] + ((op >> 4) & 0x7C), 4)
    elif kind == 14:
        took = store(memory, bus, r[rd], r[rm] + ((op >> 6) & 31), 1)
    elif kind == 15:
        took = load(memory, bus, &r[rd], r[rm] + ((op >> 6) & 31), 1)
    elif kind == 16:
        took = store(memory, bus, r[rd], r[rm] + ((op >> 5) & 0x3E), 2)
    elif kind == 17:
        took = load(memory, bus, &r[rd], r[rm] + ((op >> 5) & 0x3E), 2)
    elif kind == 18:
        took = store(memory, bus, r[(op >> 8) & 7], r[13] + ((op & 0xFF) << 2), 4)
    elif kind == 19:
        took = load(memory, bus, &r[(op >> 8) & 7], r[13] + ((op & 0xFF) << 2), 4)
    elif kind == 20:  # ADR
        r[(op >> 8) & 7] = (pc & 0xFFFFFFFCU) + 4 + ((op & 0xFF) << 2)
    elif kind == 21:  # ADD of SP
        r[(op >> 8) & 7] = r[13] + ((op & 0xFF) << 2)
    elif kind == 22:
        kind = (op >> 8) & 7
        if kind == 0:  # ADD, SUB to SP
            a = (op & 0x7F) << 2
            r[13] = (r[13] - a if op & 0x80 else r[13] + a) & 0xFFFFFFFCU
        elif kind == 2:  # SXTH, SXTB, UXTH, UXTB
            a = r[rm]
            b = (op >> 6) & 3
            if b == 0:
                r[rd] = <unsigned int><int><short>(a & 0xFFFF)
            elif b == 1:
                r[rd] = <unsigned int><int><signed char>(a & 0xFF)
            else:
                r[rd] = a & 0xFFFF if b == 2 else a & 0xFF
        elif kind == 4 or kind == 5:  # PUSH
            mask = op & 0xFF
            count = 1 if kind == 5 else 0
            for b in range(8):
                count += (mask >> b) & 1
            address = r[13] - 4 * count
            if kind == 5:
                if (address + 4 * count - 4) & 3 or memory.writable(address + 4 * count - 4) == NULL:
                    return 0
            took = several(memory, r, mask, address, False)
            if took < 0:
                return 0
            if kind == 5:
                memcpy(memory.writable(address + 4 * count - 4), &r[14], 4)
            r[13] = address & 0xFFFFFFFCU
            took += 1
        elif op == 0xB672:  # CPSID i
            core.pm = True
        elif op == 0xB662:  # CPSIE i
            core.pm = False
            core.interrupts_updated = True
        else:
            return 0
    elif kind == 23:
        kind = (op >> 8) & 7
        if kind == 4:  # POP
            took = several(memory, r, op & 0xFF, r[13], True)
            if took < 0:
                return 0
            r[13] = (r[13] + 4 * took) & 0xFFFFFFFCU
            took += 1
        elif kind == 5:  # POP with PC
            return popped(memory, r, op)
        elif kind == 2 and op < 0xBA40:  # REV
            a = r[rm]
            r[rd] = (a << 24) | ((a & 0xFF00) << 8) | ((a >> 8) & 0xFF00) | (a >> 24)
        elif op != 0xBF00:  # NOP
            return 0
    elif kind == 24 or kind == 25:  # STM, LDM
        rd = (op >> 8) & 7
        address = r[rd]
        took = several(memory, r, op & 0xFF, address, kind == 25)
        if took < 0:
            return 0
        if not op & (1 << rd):
            r[rd] = address + 4 * took
        took += 1
    elif kind == 26 or kind == 27:  # B on a condition
        kind = (op >> 8) & 15
        if kind >= 14:
            return 0
        if holds(core, kind):
            r[15] = pc + 4 + <unsigned int>(<int><signed char>(op & 0xFF) * 2)
            return 2
    elif kind == 28:  # B
        r[15] = pc + 4 + ((op & 0x7FF) << 1) - ((op & 0x400) << 2)
        return 2
    elif kind == 30:
        code = memory.readable(pc + 2)
        if code == NULL:
            return 0
        second = half(code)
        if second & 0xD000 == 0xD000:
            return called(r, op, second, pc)
        return system(core, r, op, second, pc)
    else:
        return 0
    if took:
        r[15] = pc + 2
    return took


cdef inline bint compute(CortexM0Core core, unsigned int* r, unsigned int kind, unsigned int rd, unsigned int rm) noexcept:
    """Do one of the operations on two low registers; return False: left to the core."""
    cdef unsigned int a = r[rd]
    cdef unsigned int b = r[rm]
    if kind == 0:
        r[rd] = judged(core, a & b)
    elif kind == 1:
        r[rd] = judged(core, a ^ b)
    elif kind == 2:  # LSLS
        b &= 0xFF
        if b - 1 > 30:
            return False
        core.c = (a >> (32 - b)) & 1
        r[rd] = judged(core, a << b)
    elif kind == 3:  # LSRS
        b &= 0xFF
        if b - 1 > 30:
            return False
        core.c = (a >> (b - 1)) & 1
        r[rd] = judged(core, a >> b)
    elif kind == 4:  # ASRS
        b &= 0xFF
        if b - 1 > 30:
            return False
        core.c = (a >> (b - 1)) & 1
        r[rd] = judged(core, <unsigned int>(<int>a >> b))
    elif kind == 5:
        r[rd] = added(core, a, b, 1 if core.c else 0)
    elif kind == 6:
        r[rd] = added(core, a, ~b, 1 if core.c else 0)
    elif kind == 8:
        judged(core, a & b)
    elif kind == 9:
        r[rd] = added(core, 0, ~b, 1)
    elif kind == 10:
        added(core, a, ~b, 1)
    elif kind == 11:
        added(core, a, b, 0)
    elif kind == 12:
        r[rd] = judged(core, a | b)
    elif kind == 13:
        r[rd] = judged(core, a * b)
    elif kind == 14:
        r[rd] = judged(core, a & ~b)
    elif kind == 15:
        r[rd] = judged(core, ~b)
    else:  # RORS
        return False
    return True


cdef inline int special(CortexM0Core core, unsigned int* r, unsigned int op, unsigned int pc) noexcept:
    """ADD, CMP, MOV of any registers, BX, BLX; sets PC. Returns cycles, 0: left to the core."""
    cdef unsigned int rm = (op >> 3) & 15
    cdef unsigned int rd = ((op >> 4) & 8) | (op & 7)
    cdef unsigned int kind = (op >> 8) & 3
    cdef unsigned int value
    if rm == 15 or (kind < 3 and (rd == 13 or rd == 15)):
        return 0
    value = r[rm]
    if kind == 3:
        if op & 7 or value >> 28 == 0xF:  # an exception's return
            return 0
        if op & 0x80:
            r[14] = (pc + 2) | 1
        r[15] = value & 0xFFFFFFFEU
        return 2
    if kind == 0:
        r[rd] += value
    elif kind == 1:
        added(core, r[rd], ~value, 1)
    else:
        r[rd] = value
    r[15] = pc + 2
    return 1


cdef inline int indexed(Memory memory, Bus bus, unsigned int* r, unsigned int op) except -1:
    """Loads and stores at the sum of two registers; as `load`."""
    cdef unsigned int address = r[(op >> 6) & 7] + r[(op >> 3) & 7]
    cdef unsigned int rd = op & 7
    cdef unsigned int kind = (op >> 9) & 7
    cdef int took
    if kind == 0:
        return store(memory, bus, r[rd], address, 4)
    if kind == 1:
        return store(memory, bus, r[rd], address, 2)
    if kind == 2:
        return store(memory, bus, r[rd], address, 1)
    if kind == 4:
        return load(memory, bus, &r[rd], address, 4)
    if kind == 5:
        return load(memory, bus, &r[rd], address, 2)
    if kind == 6:
        return load(memory, bus, &r[rd], address, 1)
    if kind == 3:
        took = load(memory, bus, &r[rd], address, 1)
        if took:
            r[rd] = <unsigned int><int><signed char>(r[rd] & 0xFF)
        return took
    took = load(memory, bus, &r[rd], address, 2)
    if took:
        r[rd] = <unsigned int><int><short>(r[rd] & 0xFFFF)
    return took


cdef inline int popped(Memory memory, unsigned int* r, unsigned int op) noexcept:
    """POP with PC."""
    cdef unsigned int count = 0
    cdef unsigned int address = r[13]
    cdef unsigned int target, i
    cdef unsigned char* at
    for i in range(8):
        count += (op >> i) & 1
    at = memory.readable(address + 4 * count)
    if at == NULL or address & 3:
        return 0
    target = word(at)
    if target >> 28 == 0xF:  # an exception's return
        return 0
    if several(memory, r, op & 0xFF, address, True) < 0:
        return 0
    r[13] = (address + 4 * count + 4) & 0xFFFFFFFCU
    r[15] = target & 0xFFFFFFFEU
    return 3 + count


cdef inline int called(unsigned int* r, unsigned int op, unsigned int second, unsigned int pc) noexcept:
    """BL."""
    cdef unsigned int sign = (op >> 10) & 1
    cdef unsigned int high = 1 - (sign ^ ((second >> 13) & 1))
    cdef unsigned int low = 1 - (sign ^ ((second >> 11) & 1))
    cdef unsigned int offset = (high << 23) | (low << 22) | ((op & 0x3FF) << 12) | ((second & 0x7FF) << 1)
    if sign:
        offset |= 0xFF000000U
    r[14] = (pc + 4) | 1
    r[15] = pc + 4 + offset
    return 3


cdef inline int system(CortexM0Core core, unsigned int* r, unsigned int op, unsigned int second, unsigned int pc) noexcept:
    """PRIMASK and the barriers; sets PC. Returns cycles, 0: left to the core."""
    if op == 0xF3EF and second & 0xF0FF == 0x8010 and second >> 8 < 0x8D:  # MRS
        r[(second >> 8) & 15] = 1 if core.pm else 0
    elif op & 0xFFF0 == 0xF380 and op & 15 < 13 and second == 0x8810:  # MSR
        core.pm = r[op & 15] & 1
        core.interrupts_updated = True
    elif op != 0xF3BF or not 0x8F40 <= second < 0x8F70:  # DSB, DMB, ISB
        return 0
    r[15] = pc + 4
    return 3
